"""Zero-shot classification: a picture belongs to the class whose prompts its embedding is nearest to. Range [0, 1], higher is better; chance 1 / classes.

Source: Radford et al., ICML 2021 (arXiv 2103.00020) section 3.1: the embeddings of a class's prompts are normalised, averaged and normalised again.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers.modeling_outputs import ImageClassifierOutput

from bcos_hf.models.bcos_sharing import sharing

from .finite import check_finite


@torch.no_grad()
def class_embeddings(model: nn.Module, tokenizer, prompts: list[list[str]]) -> Tensor:
    """Embeddings [C, D] of length 1, of C classes with any number of prompts each, by the text tower of a model with `get_text_features`."""
    model, made = sharing(model), []
    padding = {"padding": "max_length", "max_length": 64} if "siglip" in model.config.model_type else {"padding": True}  # as SigLIP was trained
    for texts in tqdm(prompts, desc="prompts", leave=False):
        given = tokenizer(texts, **padding, truncation=True, return_tensors="pt").to(model.device)
        given.pop("token_type_ids", None)
        embeds = F.normalize(model.get_text_features(**given).pooler_output.float(), dim=-1)
        made.append(F.normalize(embeds.mean(0), dim=0))
    return torch.stack(made)


def embeddings_of(output) -> Tensor:
    """The image embedding [N, D] in the output of a tower or a model."""
    embeds = getattr(output, "image_embeds", None)
    return output.pooler_output if embeds is None else embeds


@torch.no_grad()
def image_embeddings(model: nn.Module, pixel_values: Tensor, batch_size: int = 50) -> Tensor:
    """Embeddings [M, D] of length 1 of pictures [M, C, H, W], by a model with `get_image_features` or an image tower."""
    model, made = sharing(model), []
    for part in tqdm(pixel_values.split(batch_size), desc="embedding", leave=False):
        part = part.to(model.device)
        output = model.get_image_features(pixel_values=part) if hasattr(model, "get_image_features") else model(pixel_values=part)
        made.append(F.normalize(embeddings_of(output).float(), dim=-1).cpu())
    return torch.cat(made)


def zero_shot_accuracy(image_embeds: Tensor, class_embeds: Tensor, labels: Tensor) -> dict:
    """{"top1", "top5" (where there are more than five classes), "per_class" [C]}, of embeddings [M, D] and [C, D] of length 1 and labels [M].

    A class without pictures has None. A ValueError for embeddings that are not finite.
    """
    check_finite(image_embeds=image_embeds, class_embeds=class_embeds)
    cosines = image_embeds @ class_embeds.to(image_embeds).T
    right = cosines.argmax(1) == labels
    per_class = [right[labels == index].float().mean().item() if (labels == index).any() else None for index in range(len(class_embeds))]
    made = {"top1": right.float().mean().item(), "per_class": per_class}
    if len(class_embeds) > 5:
        made["top5"] = (cosines.topk(5, dim=1).indices == labels[:, None]).any(1).float().mean().item()
    return made


def linear_probe_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], weight_decay: float = 1e-3, steps: int = 200) -> float:
    """Accuracy on `test` of logistic regression fitted to `train`; each is embeddings [M, D] of length 1 and labels [M]. Fitted by L-BFGS, on the CPU."""
    (x, y), (test_x, test_y) = train, test
    check_finite(train=x, test=test_x)
    mean, deviation = x.mean(0), x.std(0).clamp_min(1e-6)
    layer = nn.Linear(x.shape[1], int(max(y.max(), test_y.max())) + 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=steps, line_search_fn="strong_wolfe")
    x = (x - mean) / deviation

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(layer(x), y) + weight_decay * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return (layer((test_x - mean) / deviation).argmax(1) == test_y).float().mean().item()


class ZeroShotClassifier(nn.Module):
    """A model of pictures and texts as an image classifier, for measures that want one: logits [N, C] are scale times the cosines with C classes.

    `explain` is the model's, for classes in the place of prompts; a model that is no B-cos model has none.
    """

    def __init__(self, model: nn.Module, class_embeds: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.model, self.scale = model.eval(), scale
        self.register_buffer("class_embeds", class_embeds.to(model.device))

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self.model.device

    @property
    def base_model(self) -> nn.Module:
        """The image tower, for explainers that look inside."""
        return getattr(self.model, "vision_model", self.model)

    def forward(self, pixel_values: Tensor, **kwargs) -> ImageClassifierOutput:
        """Logits of pictures [N, C, H, W]."""
        embeds = self.model.get_image_features(pixel_values=pixel_values, **kwargs).pooler_output
        return ImageClassifierOutput(logits=self.scale * F.normalize(embeds, dim=-1) @ self.class_embeds.to(embeds.dtype).T)

    def explain(self, pixel_values: Tensor, targets=None, **options):
        """An Explanation of the cosines; arguments as the model's `explain`."""
        return self.model.explain(pixel_values, text_embeds=self.class_embeds, targets=targets, **options)
