"""explain() for texts: contributions of the tokens to a logit.

The explained input is the output of the embedding layer (word + position + type, normalised), so that a model without biases leaves nothing over: the
contributions of the tokens are the logit. Source: Wang et al., TMLR 2025 (arXiv 2502.12992) section 3; their score is the mean over the hidden
dimension, ours the sum, which adds up.
"""

from copy import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from .bcos_class_names import asked_classes, asked_labels, class_names
from .bcos_explaining import check_finite, explained
from .bcos_explanation import Explanation
from .bcos_given import token_inputs
from .bcos_layers import Bcos
from .bcos_text import as_given, attention_mask_of, check_length, input_of, right_padded, token_number, with_tokens
from .modeling_bcos import BcosModelMixin, leaf_at


def _check_input(base_model: nn.Module, args: tuple, kwargs: dict) -> None:
    tokens = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    if tokens is not None and tokens.dim() > 1:
        check_length(base_model, tokens.shape[1])


class BcosTextModelMixin(BcosModelMixin):
    """`BcosModelMixin` for language models."""

    def __init__(self, config, *args, **kwargs) -> None:
        super().__init__(config, *args, **kwargs)
        self.base_model.register_forward_pre_hook(_check_input, with_kwargs=True)

    def _get_resized_lm_head(self, old_lm_head: nn.Module, *args, **kwargs) -> nn.Module:
        """As transformers, which makes a plain linear layer: what the head was, B-cos layer or not, it still is."""
        if isinstance(old_lm_head, Bcos) and old_lm_head.max_out > 1:
            raise ValueError(f"resize_token_embeddings: expected a head with one row a token, got max_out={old_lm_head.max_out}. Resize before the conversion.")
        made = super()._get_resized_lm_head(old_lm_head, *args, **kwargs)
        if made is old_lm_head:
            return made
        head = copy(old_lm_head)
        head._parameters = {**old_lm_head._parameters, "weight": made.weight, "bias": made.bias}
        head.out_features = made.out_features
        return head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """As transformers; beside an untied head BERT and RoBERTa keep a bias of their own, whose length has to be the head's to be loaded again."""
        super().set_output_embeddings(new_embeddings)
        beside = next(module for module in self.modules() if new_embeddings in module.children())
        size, old = len(new_embeddings.weight), getattr(beside, "bias", None)
        if isinstance(old, nn.Parameter) and not self.config.tie_word_embeddings:  # one tensor of two names would be saved under one
            made = old.new_zeros(size)
            made[: len(old)] = old.detach()[:size]
            beside.bias = nn.Parameter(made, requires_grad=old.requires_grad)

    def _explained_logits(self, inputs: dict[str, Tensor], position: Tensor | None) -> Tensor:
        """Logits [N, C] of inputs that are padded on the right."""
        return self._class_logits(self(**inputs), position)

    def explain(self, targets=None, contrast=None, position=None, tokenizer=None, return_weights=True, chunk=None, **inputs) -> Explanation:
        """Explain logits exactly, by the contributions of the tokens.

        Args:
            targets: classes to explain; None is the predicted one. A number or a name, a list, or a LongTensor [N] or
                [N, K]; K costs one forward pass. Of a language model, tokens: their numbers, or with `tokenizer` texts.
            contrast: classes to speak against ('why a rather than b'), given like `targets`; or "mean" for the mean over classes.
            position: for heads with logits at every token, which token: an int or [N]. None is the mask token, where `tokenizer` has one.
            tokenizer: fills in `tokens`, for showing, and for merging pieces into words.
            return_weights: keep the rows of W(x), [N, K, L, D].
            chunk: how many targets share a backward pass; None: 8 on an accelerator, 1 on a CPU.
            **inputs: what forward takes, on any device, padded on either side, as tensors, arrays or lists; labels are ignored.

        Returns:
            An Explanation in the layout of the inputs. The model, its gradients, its mode and the tensors given are left as found. Padding is moved
            to the right for the pass, so that an input's result does not depend on its neighbours.

        Raises:
            ValueError: an empty batch, a text longer than the model's positions, a class that does not exist, a shape that does not fit.
            TypeError: a model without a head, which has no logits.
        """
        inputs = token_inputs(inputs, targets, self.device, self.get_input_embeddings().num_embeddings)
        mask = attention_mask_of(inputs)
        if "inputs_embeds" in inputs:
            check_finite("inputs_embeds", inputs["inputs_embeds"])
        aligned, order = right_padded({**inputs, "attention_mask": mask}, mask)
        position = self._position(position, tokenizer, inputs, mask)
        if position is not None and order is not None:
            position = order.argsort(1).gather(1, position[:, None])[:, 0]
        probe = torch.zeros(len(mask), device=self.device, dtype=self.dtype, requires_grad=True)
        with self._explaining(probe) as model, leaf_at(*input_of(model.base_model)) as leaf:
            logits = model._explained_logits(aligned, position)
            labels = class_names(self.config, logits.shape[1])
            if labels is None and tokenizer is not None:  # whose tokens are the classes
                number_of = partial(token_number, tokenizer, logits.shape[1])
                asked = asked_classes(targets, contrast, number_of)
            else:
                asked = asked_labels(targets, contrast, labels)
            made = self._stated(explained(logits, leaf[0], probe, *asked, chunk=chunk))
        made = replace(
            made,
            contributions=as_given(made.contributions, order, 2),
            weights=as_given(made.weights, order, 2) if return_weights else None,
            labels=labels,
        )
        return made if tokenizer is None or "input_ids" not in inputs else with_tokens(made, tokenizer, inputs["input_ids"], mask)

    def _position(self, position, tokenizer, inputs: dict[str, Tensor], mask: Tensor) -> Tensor | None:
        """Which token's logits are explained, [N], in the layout of the inputs; None for heads with one row of logits an input."""
        n, length = mask.shape
        if position is not None:
            position = torch.as_tensor(position, device=mask.device)
            if position.dim() > 1 or (position.dim() == 1 and len(position) != n) or position.min() < 0 or position.max() >= length:
                raise ValueError(f"position: expected an int or shape [{n}], from 0 to {length - 1}, got {position.tolist()}.")
            return position.expand(n)
        if getattr(tokenizer, "mask_token_id", None) is None or "input_ids" not in inputs:
            return None
        masked = inputs["input_ids"] == tokenizer.mask_token_id
        return masked.int().argmax(1) if bool((masked.sum(1) == 1).all()) else None

    def _class_logits(self, output, position: Tensor | None) -> Tensor:
        """Logits [N, C] of an output whose logits are [N, C], or [N, L, C] at `position` [N]."""
        logits = getattr(output, "logits", None)
        if logits is None:
            raise TypeError(f"explain: expected a model with a head, that gives logits; {type(self).__name__} has none.")
        if logits.dim() == 2:
            return logits
        if position is None:
            raise ValueError("position: this head has logits at every token; say which (an int or [N]), or pass a tokenizer and texts with one mask token.")
        return logits[torch.arange(len(logits), device=logits.device), position]
