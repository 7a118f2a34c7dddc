"""B-cos BERT."""

from transformers import BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification, BertModel

from .bcos_conversion import Roles
from .bcos_fits import bert_fits
from .configuration_bcos_bert import BcosBertConfig
from .modeling_bcos_text import BcosTextModelMixin


class _BcosBert(BcosTextModelMixin):
    config_class = BcosBertConfig
    roles = Roles(logits=("classifier",), head_activations=("pooler.activation", "bert.pooler.activation"), fits=bert_fits())


class BcosBertModel(_BcosBert, BertModel):
    """B-cos BertModel: hidden states and a pooled output."""


class BcosBertForSequenceClassification(_BcosBert, BertForSequenceClassification):
    """B-cos BertForSequenceClassification."""


class BcosBertForTokenClassification(_BcosBert, BertForTokenClassification):
    """B-cos BertForTokenClassification."""


class BcosBertForMaskedLM(_BcosBert, BertForMaskedLM):
    """B-cos BertForMaskedLM; the decoder stays a linear layer tied to the embeddings."""
