"""explain() for causal language models: contributions of the tokens so far to the logit of the next one, or to a class.

The explained input is that of the first layer (word, and of GPT-2 position embeddings), so that a model without biases leaves nothing over. Source:
Wang et al., TMLR 2025 (arXiv 2502.12992) section 6; their GPT-2 counts the word embeddings alone, which then do not add up to the logit.
"""

from dataclasses import replace

from torch import Tensor

from .bcos_conversion import Roles
from .bcos_text import last_tokens
from .modeling_bcos_text import BcosTextModelMixin


class BcosDecoderModelMixin(BcosTextModelMixin):
    """`BcosTextModelMixin` for decoders. Of a language model `targets` and `contrast` are tokens, and `position` None is each text's last token."""

    roles = Roles(logits=("score",))

    @property
    def _roles(self) -> Roles:
        return replace(self.roles, bcos=("lm_head",)) if self.config.convert_lm_head else self.roles

    def _position(self, position, tokenizer, inputs: dict[str, Tensor], mask: Tensor) -> Tensor:
        if position is None:
            position = last_tokens(mask)
        return super()._position(position, tokenizer, inputs, mask)

    def _explained_logits(self, inputs: dict[str, Tensor], position: Tensor) -> Tensor:
        if self.get_output_embeddings() is not None:  # at the positions asked for alone: a vocabulary is large
            kept, index = position.unique(return_inverse=True)
            return self._class_logits(self(**inputs, use_cache=False, logits_to_keep=kept), index)
        padded = not bool(inputs["attention_mask"].all())
        if padded and hasattr(self, "score") and ("input_ids" not in inputs or self.config.pad_token_id is None):
            raise ValueError(
                f"explain: expected input_ids and config.pad_token_id, by which a padded text's last token is found; got {sorted(inputs)} and pad_token_id "
                f"{self.config.pad_token_id}. Set it, or give texts of one length, without padding."
            )
        return self._class_logits(self(**inputs, use_cache=False), position)
