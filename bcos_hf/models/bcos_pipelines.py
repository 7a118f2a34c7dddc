"""pipeline("bcos-image-explanation"): pictures in, the classes and why out; as "image-classification", with an Explanation beside each class."""

import torch
from transformers import AutoModelForImageClassification, ImageClassificationPipeline
from transformers.pipelines import PIPELINE_REGISTRY


TASK = "bcos-image-explanation"


class BcosImageExplanationPipeline(ImageClassificationPipeline):
    """Explains the `top_k` most probable classes of each picture (default 1), or `targets`.

    Takes what the image-classification pipeline takes: a path, a URL, a PIL image, or a list of them. Gives for each picture a list of
    {"label", "score" (sigmoid), "explanation": Explanation with N = K = 1}, the most probable first.

    Raises:
        TypeError: the model is no B-cos model.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "explain"):
            raise TypeError(f"{TASK}: expected a B-cos model, got a {type(self.model).__name__}. Convert it with bcos_hf.bcosify and fine-tune it.")

    def _sanitize_parameters(self, top_k: int | None = None, targets=None, timeout=None):
        preprocess = {} if timeout is None else {"timeout": timeout}
        given = {name: value for name, value in (("top_k", top_k), ("targets", targets)) if value is not None}
        return preprocess, given, {}

    def get_inference_context(self):
        """Explanations need gradients."""
        return torch.enable_grad

    def _forward(self, model_inputs, top_k: int = 1, targets=None):
        if targets is None:
            with torch.no_grad():
                targets = self.model(**model_inputs).logits.topk(min(top_k, self.model.config.num_labels)).indices
        explanation = self.model.explain(**model_inputs, targets=targets)
        return {"logits": explanation.logits, "explanation": explanation}  # a batch is taken apart by the size of the first, and by indexing

    def postprocess(self, model_outputs) -> list[dict]:
        """One entry a class."""
        explanation = model_outputs["explanation"].to("cpu")
        made = [explanation.of_target(index) for index in range(explanation.targets.shape[1])]
        scores = explanation.logits[0].float().sigmoid()
        return [{"label": self.model.config.id2label[target], "score": scores[target].item(), "explanation": one}
                for target, one in zip(explanation.targets[0].tolist(), made, strict=True)]  # fmt: skip


if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(TASK, BcosImageExplanationPipeline, pt_model=AutoModelForImageClassification, type="image")
