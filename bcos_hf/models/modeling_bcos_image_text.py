"""explain() for image towers whose embedding is compared with texts: which pixels make the cosine with a prompt.

The explained number is the cosine of the image and the text embedding. The norm of the image embedding is held constant, as every norm, so that
contributions and constant add up to the cosine. Source: Arya et al., NeurIPS 2024 (arXiv 2411.00715) section 3 and appendix.
"""

from dataclasses import replace

import torch
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPOutput

from .bcos_class_names import asked_labels
from .bcos_conversion import Roles
from .bcos_explaining import check_finite, explained
from .bcos_explanation import Explanation
from .bcos_precision import wide
from .modeling_bcos import leaf_at
from .modeling_bcos_vision import BcosVisionModelMixin


def unit(x: Tensor, constant: bool = True) -> Tensor:
    """x [..., D] over its length, in float32 at least; the length is a `constant` for autograd unless that is False."""
    x = wide(x)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return x / (norm.detach() if constant else norm)


def cosine_power_score(cosines: Tensor, power: float = 1.0, max_normalise: bool = False) -> Tensor:
    """Mean over positions of c |c|^(power - 1), the factor held constant; cosines [N, positions, P] -> [N, P].

    A high power listens to the positions that are sure. `max_normalise` divides c by the largest |c| over positions first, held constant too, as published.
    """
    if power < 1:
        raise ValueError(f"cosine_power: expected a number >= 1, got {power}.")
    size = cosines.detach().abs()
    if max_normalise:
        largest = size.amax(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
        cosines, size = cosines / largest, size / largest
    return (cosines * size ** (power - 1)).mean(1)


class BcosImageEmbeddingMixin(BcosVisionModelMixin):
    """`BcosVisionModelMixin` for a model that embeds pictures; a family gives `image_embeds`."""

    def image_embeds(self, pixel_values: Tensor, **inputs) -> Tensor:
        """Embeddings [N, D] of pictures [N, C, H, W], not normalised."""
        raise NotImplementedError

    def position_embeds(self, pixel_values: Tensor, **inputs) -> Tensor:
        """Embeddings [N, positions, D] of each position before pooling, not normalised; only towers with an attention pool of OpenAI's kind have them."""
        raise ValueError(f"unpool: {type(self).__name__} pools inside its layers; only CLIP's ResNets can be read before the pool.")

    def explain(
        self, pixel_values: Tensor, text_embeds: Tensor | None = None, targets=None, contrast=None, return_weights: bool = True, chunk: int | None = None,
        prompts: list[str] | None = None, unpool: bool = False, cosine_power: float = 1.0, max_normalise: bool = False, **inputs,
    ) -> Explanation:  # fmt: skip
        """Explain the cosine of each picture with P prompts exactly, by the contributions of the pixels.

        Args:
            pixel_values: [N, C, H, W] as the image processor gives them.
            text_embeds: [P, D], of any length. A model with a text tower takes input_ids [P, L] (and attention_mask) in their place.
<<<<<<< HEAD
            targets, contrast: prompts, by number or, with `prompts`, by their text, as `BcosVisionModelMixin.explain` takes
                classes; None is the prompt that fits best.
=======
            targets, contrast: prompts, by number or, with `prompts`, by their text, as `BcosVisionModelMixin.explain` takes classes; None is
                the prompt that fits best.
>>>>>>> cef02bea2b90109d11f47a4779b16f6bbb9946a6
            return_weights, chunk, **inputs: as there.
            prompts: P texts, for legends.
            unpool: compare each position with the prompts in the place of the pooled embedding (CLIP's ResNets); the explained number is then
                `cosine_power_score` with `cosine_power` and `max_normalise`. Published: 1, 7 and 19.

        Returns:
            An Explanation, whose logits [N, P] are cosines (or scores).

        Raises:
            ValueError: embeddings of another size, a power below 1, no prompt; and as there.
        """
        if text_embeds is None or text_embeds.dim() != 2 or not len(text_embeds):
            got = None if text_embeds is None else list(text_embeds.shape)
            raise ValueError(f"text_embeds: expected [prompts, {self._embed_dim}], got {got}. A model with a text tower makes them from input_ids.")
        if text_embeds.shape[1] != self._embed_dim:
            raise ValueError(f"text_embeds: expected [prompts, {self._embed_dim}], got {list(text_embeds.shape)}.")
        check_finite("text_embeds", text_embeds)
        if prompts is not None and len(prompts) != len(text_embeds):
            raise ValueError(f"prompts: expected {len(text_embeds)} texts, one for each embedding, got {len(prompts)}.")
        targets, contrast = asked_labels(targets, contrast, prompts)
        reading = {"unpool": unpool, "cosine_power": cosine_power, "max_normalise": max_normalise}
        made = super().explain(pixel_values, targets, contrast, return_weights, chunk, text_embeds=text_embeds.detach(), **reading, **inputs)
        return replace(made, labels=prompts, quantity="score" if unpool and (cosine_power != 1 or max_normalise) else "cosine")

    @property
    def _embed_dim(self) -> int:
        return self.config.projection_dim

    def _logits_to_explain(self, pixel_values, text_embeds, unpool=False, cosine_power=1.0, max_normalise=False, **inputs) -> Tensor:
        texts = unit(text_embeds).T
        if not unpool:
            return unit(self.image_embeds(pixel_values, **inputs)) @ texts.to(self.dtype)
        return cosine_power_score(unit(self.position_embeds(pixel_values, **inputs)) @ texts, cosine_power, max_normalise)


class BcosImageTextMixin(BcosImageEmbeddingMixin):
    """`BcosImageEmbeddingMixin` for a model with a text tower, of which `config.convert_text` says whether it is a B-cos network too."""

    zero_shot = True
    image_parts = ("vision_model", "visual_projection")

    @property
    def _roles(self) -> Roles:
        return self.roles if self.config.convert_text else replace(self.roles, parts=self.image_parts)

    def image_embeds(self, pixel_values: Tensor, **inputs) -> Tensor:
        """Embeddings [N, D] of pictures [N, C, H, W], not normalised."""
        return self.get_image_features(pixel_values=pixel_values, **inputs).pooler_output

    def forward(self, input_ids: Tensor | None = None, pixel_values: Tensor | None = None, **kwargs):
        """As the standard model; of pictures alone, the output has their `image_embeds`, not normalised, as CLIPVisionModelWithProjection gives them."""
        if input_ids is not None or pixel_values is None:
            return super().forward(input_ids=input_ids, pixel_values=pixel_values, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name != "return_loss"}
        return CLIPOutput(image_embeds=self.image_embeds(pixel_values, **kwargs))

    def explain(self, pixel_values: Tensor, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, text_embeds: Tensor | None = None, **inputs):
        """As `BcosImageEmbeddingMixin.explain`; prompts are input_ids [P, L] with their attention_mask, or text_embeds [P, D]."""
        if (input_ids is None) == (text_embeds is None):
            raise ValueError("explain: expected the prompts either as input_ids [P, L] (with attention_mask) or as text_embeds [P, D].")
        if text_embeds is None:
            with self._explaining(None) as model, torch.no_grad():
                text_embeds = model._text_embeds(input_ids, attention_mask)
        return super().explain(pixel_values, text_embeds, **inputs)

    def _text_embeds(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        mask = None if attention_mask is None else attention_mask.to(self.device)
        return self.get_text_features(input_ids=input_ids.to(self.device), attention_mask=mask).pooler_output

    def explain_text(
        self, input_ids: Tensor, image_embeds: Tensor, attention_mask: Tensor | None = None, targets=None, contrast=None, chunk: int | None = None
    ) -> Explanation:  # fmt: skip
        """Explain the cosine of texts [N, L] with M pictures exactly, by the contributions of the tokens [N, K, L] (token and position embedding together).

        Args:
            input_ids, attention_mask: [N, L]. image_embeds: [M, D]. targets, contrast: numbers of pictures, as `explain` takes prompts.

        Raises:
            ValueError: a model whose text tower is not converted, or embeddings of another size.
        """
        if not self.config.convert_text:
            raise ValueError("explain_text: expected a model made with convert_text=True; the text tower of this one is an ordinary network.")
        if image_embeds.dim() != 2 or image_embeds.shape[1] != self._embed_dim:
            raise ValueError(f"image_embeds: expected [pictures, {self._embed_dim}], got {list(image_embeds.shape)}.")
        check_finite("image_embeds", image_embeds)
        probe = torch.zeros(len(input_ids), device=self.device, dtype=self.dtype, requires_grad=True)
        with self._explaining(probe) as model, leaf_at(model.text_model.embeddings) as leaf:
            texts = unit(model._text_embeds(input_ids, attention_mask))
            made = self._stated(explained(texts @ unit(image_embeds.detach().to(texts)).T, leaf[0], probe, targets, contrast, chunk=chunk))
        return replace(made, quantity="cosine")
