"""Pipelines that explain: images or texts in, the classes and why out.

They do what "image-classification" and "text-classification" do, with an Explanation beside each class. A saved model carries this file and names its
pipeline in its configuration (`bcos_saving.pipeline_named`), so that pipeline(task, model, trust_remote_code=True) works without bcos_hf.
"""

import torch
from transformers import ImageClassificationPipeline, TextClassificationPipeline

from .bcos_class_names import class_names, class_number, numbered
from .bcos_processors import checked_processor
from .bcos_text import positions_of


IMAGE_TASK, TEXT_TASK = "bcos-image-explanation", "bcos-text-explanation"


class _Explains:
    """What both pipelines add to those of transformers."""

    task_name = head = auto_class = modality = ""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        checked_processor(getattr(self, "image_processor", None))
        name = type(self.model).__name__
        if not hasattr(self.model, "explain"):
            raise TypeError(f"{self.task_name}: expected a B-cos model, got a {name}. Convert it with bcos_hf.bcosify and fine-tune it.")
        saved_as = (self.model.config.architectures or [name])[0]
        if not (name.endswith(self.head) and saved_as.endswith(self.head)):
            raise TypeError(
                f"{self.task_name}: expected a model that was saved with a head of its own ({self.head}), got a {saved_as}, "
                "whose head here would be random."
            )

    def _sanitize_parameters(self, top_k: int | None = None, targets=None, **preprocess):
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {top_k}.")
        given = {} if top_k is None else {"top_k": top_k}
        if targets is not None:
            given["targets"] = self._targets(targets)
        return {name: value for name, value in preprocess.items() if value is not None}, given, {}

    def _targets(self, targets) -> list[int]:
        """The classes that are explained of every input, whatever the size of the batches."""
        names = class_names(self.model.config)
        numbers = torch.as_tensor(numbered(targets, lambda name: class_number(name, names)))
        if numbers.dim() > 1 or not numbers.numel() or numbers.dtype == torch.bool or numbers.is_floating_point():
            raise ValueError(f"targets: expected a class, or a list of those to explain of every input; got {str(targets)[:80]}.")
        if numbers.min() < 0 or numbers.max() >= len(names):
            raise ValueError(f"targets: expected classes 0 to {len(names) - 1}, got {numbers.tolist()}.")
        return numbers.flatten().tolist()

    def get_inference_context(self):
        """Explanations need gradients."""
        return torch.enable_grad

    def _forward(self, model_inputs, top_k: int = 1, targets: list[int] | None = None):
        if targets is None:
            with torch.no_grad():
                logits = self.model(**model_inputs).logits
            wanted = logits.topk(min(top_k, logits.shape[-1])).indices
        else:
            wanted = [targets] * len(next(iter(model_inputs.values())))
        explanation = self.model.explain(**model_inputs, **self._options, targets=wanted)
        return {"logits": explanation.logits, "explanation": explanation}  # a batch is taken apart by the size of the first, and by indexing

    @property
    def _options(self) -> dict:
        return {}

    def _shown(self, explanation):
        return explanation

    def postprocess(self, model_outputs, **kwargs) -> list[dict]:
        """One entry a class."""
        explanation = model_outputs["explanation"].to("cpu")
        names, scores = class_names(self.model.config), explanation.logits[0].float().sigmoid()
        made = []
        for index, target in enumerate(explanation.targets[0].tolist()):
            one = self._shown(explanation.of_target(index))
            made.append({"label": names[target], "score": scores[target].item(), "explanation": one})
        return made


class BcosImageExplanationPipeline(_Explains, ImageClassificationPipeline):
    """Explains the `top_k` most probable classes of each image (default 1), or `targets`: a class or several, by number or name.

    Takes what the image-classification pipeline takes: a path, a URL, a PIL image, or a list of them. Gives for each image a list of
    {"label", "score" (sigmoid), "explanation": Explanation with N = K = 1}, the most probable first.

    Raises:
        TypeError: the model is no B-cos classifier of images.
        ValueError: targets that are no classes, or a top_k below 1.
    """

    task_name = IMAGE_TASK
    head = "ForImageClassification"
    auto_class = "AutoModelForImageClassification"
    modality = "image"


class BcosTextExplanationPipeline(_Explains, TextClassificationPipeline):
    """Explains the `top_k` most probable classes of each text (default 1), or `targets`: a class or several, by number or name.

    Takes what the text-classification pipeline takes: a text, {"text", "text_pair"}, or a list of them; longer ones than the model takes are
    truncated. Gives for each text a list of {"label", "score" (sigmoid), "explanation": Explanation of its words with N = K = 1}, the most probable first.
    `words=False` explains tokens.

    Raises:
        TypeError: the model is no B-cos classifier of texts.
        ValueError: targets that are no classes, or a top_k below 1.
    """

    task_name = TEXT_TASK
    head = "ForSequenceClassification"
    auto_class = "AutoModelForSequenceClassification"
    modality = "text"

    def _sanitize_parameters(self, top_k: int | None = None, targets=None, words: bool | None = None, **preprocess):
        preprocess, forward, _ = super()._sanitize_parameters(top_k, targets, **preprocess)
        return preprocess, forward, {} if words is None else {"words": words}

    def __call__(self, inputs, **kwargs):
        """A list of entries for a text, a list of such lists for several."""
        return super(TextClassificationPipeline, self).__call__(inputs, **kwargs)

    def preprocess(self, inputs, **kwargs) -> dict:
        """The tokens of a text or a pair of texts, no more than the model reads."""
        limit = min(self.tokenizer.model_max_length, positions_of(self.model.base_model))
        options = {"truncation": True, "max_length": limit, **kwargs}
        if isinstance(inputs, dict):
            return dict(self.tokenizer(**inputs, return_tensors="pt", **options))
        if not isinstance(inputs, str):
            raise ValueError(f"{TEXT_TASK}: expected a text or {{'text', 'text_pair'}}, got {type(inputs).__name__}.")
        return dict(self.tokenizer(inputs, return_tensors="pt", **options))

    @property
    def _options(self) -> dict:
        return {"tokenizer": self.tokenizer, "return_weights": False}

    def postprocess(self, model_outputs, words: bool = True, **kwargs) -> list[dict]:
        """One entry a class."""
        made = super().postprocess(model_outputs)
        return [{**entry, "explanation": entry["explanation"].merge_words()} for entry in made] if words else made


# how a class name ends -> the pipeline that explains it
PIPELINES = {pipeline.head: pipeline for pipeline in (BcosImageExplanationPipeline, BcosTextExplanationPipeline)}
