"""A conversion that a rule is missing for is refused, whatever the missing part is called and however small the weights are; a right one is not."""

import pytest
import transformers
from conftest import DECODERS, EMBEDDERS, MEMBERS, TINY, batch_of, tiny
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers.models.bert.modeling_bert import BertIntermediate
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP, Qwen2RMSNorm

from bcos_hf import bcosify, verify
from bcos_hf.models.bcos_linearity import kept_factors, random_input
from bcos_hf.models.configuration_bcos import BcosDecoderConfigMixin
from bcos_hf.models.modeling_bcos_bert import BcosBertForSequenceClassification, BcosBertModel
from bcos_hf.models.modeling_bcos_decoder import BcosDecoderModelMixin
from bcos_hf.models.modeling_bcos_llama import BcosLlamaRMSNorm


@strict
class NaiveQwenConfig(BcosDecoderConfigMixin, transformers.Qwen2Config):
    model_type = "naive_qwen2"


class QwenRMSNorm(BcosLlamaRMSNorm, Qwen2RMSNorm):
    """Has its rule."""


class RenamedMLP(Qwen2MLP):
    """A gated MLP whose gate has a name that no rule knows."""

    def complete(self):
        self.gate = self._modules.pop("gate_proj")

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate(x)) * self.up_proj(x))


class Qwen(BcosDecoderModelMixin, transformers.Qwen2ForCausalLM):
    """Right: attention and MLP have the names that the rules know."""

    config_class = NaiveQwenConfig
    twins = {Qwen2RMSNorm: QwenRMSNorm}


class NaiveQwen(Qwen):
    """Not right."""

    twins = {Qwen2RMSNorm: QwenRMSNorm, Qwen2MLP: RenamedMLP}


class UnnormedQwen(Qwen):
    """Not right either: a norm without its rule."""

    twins = {}


class Functional(BertIntermediate):
    """Calls its activation as a function."""

    def forward(self, hidden_states):
        return nn.functional.silu(self.dense(hidden_states))


class Squared(BertIntermediate):
    """A product of two branches."""

    def forward(self, hidden_states):
        return self.dense(hidden_states) * hidden_states[..., :1]


class Attended(BertIntermediate):
    """Mixes tokens by probabilities of its own."""

    def forward(self, hidden_states):
        return self.dense((hidden_states @ hidden_states.mT).softmax(-1) @ hidden_states)


def naive_bert(part, base):
    """A family of its own class, that nothing was tried on."""
    return type(f"Naive{part.__name__}", (base,), {"twins": {BertIntermediate: part}, "__module__": __name__})


@pytest.mark.parametrize("base", [BcosBertForSequenceClassification, BcosBertModel])
@pytest.mark.parametrize("part", [Functional, Squared, Attended])
def test_a_part_without_a_rule_is_refused(part, base):
    standard = {BcosBertModel: "AutoModel"}.get(base, "AutoModelForSequenceClassification")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, **TINY
    )
    model = getattr(transformers, standard).from_config(config).eval()  # fresh weights: what the part adds is small
    part_of = [rf"(bert\.)?encoder\.layer\.{layer}\.intermediate \(\w+\)" for layer in (0, 1)]
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"no rule makes {', '.join(part_of)} dynamic linear"):
            naive_bert(part, base).from_standard(model)
    naive_bert(part, base).from_standard(model, check_linear=False)


def test_a_gated_family_is_right_or_refused():
    config = transformers.Qwen2Config(**{**TINY, **DECODERS["llama"]})
    model = transformers.Qwen2ForCausalLM(config).eval()
    assert verify(Qwen.from_standard(model), **batch_of("llama")).exact
    with pytest.raises(
        ValueError,
        match=r"no rule makes model.layers.0.mlp .MulBackward0., model.layers.1.mlp .MulBackward0. dynamic linear",
    ):
        NaiveQwen.from_standard(model)
    with pytest.raises(ValueError, match="no rule for a Qwen2RMSNorm"):
        UnnormedQwen.from_standard(model)


@pytest.mark.parametrize("fields", [{}, {"keep_biases": True, "head_activation": "keep"}])
def test_every_member_converts(fields):
    """In a right family nothing is found."""
    for family, head in MEMBERS:
        made = bcosify(tiny(family, head), check_linear=False, **fields)
        kept, _ = kept_factors(made, random_input(made))
        assert not kept, (family, head)


@pytest.mark.parametrize("kind", sorted(EMBEDDERS))
def test_every_tower_converts(kind):
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **EMBEDDERS[kind])).eval()
    for fields in [{}] if "vision" in kind else [{}, {"convert_text": True}]:
        made = bcosify(model, **fields)
        assert not kept_factors(made, random_input(made))[0]
