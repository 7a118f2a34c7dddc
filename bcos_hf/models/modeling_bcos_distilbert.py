"""B-cos DistilBERT. Its sequence classifier makes a ReLU inside forward, which `head_activation` must reach: that forward is written here."""

from torch import Tensor, nn
from transformers import DistilBertForMaskedLM, DistilBertForSequenceClassification, DistilBertForTokenClassification, DistilBertModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .bcos_conversion import Roles
from .bcos_fits import KEYS, TIED, Fit
from .configuration_bcos_distilbert import BcosDistilBertConfig
from .modeling_bcos_text import BcosTextModelMixin


class _BcosDistilBert(BcosTextModelMixin):
    config_class = BcosDistilBertConfig
    roles = Roles(
        logits=("classifier",),
        fits=(
            Fit(r"(.*)transformer\.layer\.0\.attention\.(?:q|v)_lin", (r"\1embeddings.LayerNorm",)),
            Fit(r"(.*)(transformer\.layer\.0\.)attention\.out_lin", then=(r"\1\2sa_layer_norm",), adds=r"\1embeddings.LayerNorm"),
            Fit(r".*attention\.(?:q|v)_lin"),
            Fit(r".*attention\.k_lin", left=KEYS),
            Fit(r"(.*)attention\.out_lin", then=(r"\1sa_layer_norm",)),
            Fit(r"(.*ffn\.)lin1", then=(r"\1activation",)),
            Fit(r"(.*)ffn\.lin2", then=(r"\1output_layer_norm",)),
            Fit("pre_classifier", function="relu"),
            Fit("classifier"),
            Fit("vocab_transform", then=("activation",)),
            Fit("vocab_projector", left=TIED),
        ),
    )


class BcosDistilBertModel(_BcosDistilBert, DistilBertModel):
    """B-cos DistilBertModel: hidden states."""


class BcosDistilBertForSequenceClassification(_BcosDistilBert, DistilBertForSequenceClassification):
    """B-cos DistilBertForSequenceClassification."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput | tuple:
        """As DistilBertForSequenceClassification, with the head's ReLU kept or left out by `config.head_activation`."""
        output = self.distilbert(input_ids, attention_mask, inputs_embeds, position_ids, return_dict=True, **kwargs)
        pooled = self.pre_classifier(output.last_hidden_state[:, 0])
        pooled = nn.functional.relu(pooled) if self.config.head_activation == "keep" else pooled
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        made = SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions)
        return made.to_tuple() if return_dict is False else made


class BcosDistilBertForTokenClassification(_BcosDistilBert, DistilBertForTokenClassification):
    """B-cos DistilBertForTokenClassification."""


class BcosDistilBertForMaskedLM(_BcosDistilBert, DistilBertForMaskedLM):
    """B-cos DistilBertForMaskedLM; the vocabulary projector stays a linear layer tied to the embeddings."""
