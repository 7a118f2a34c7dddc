"""B-cos RoBERTa. Its two heads call tanh and gelu as functions; their twins call them as modules, which the conversion can see."""

from torch import Tensor, nn
from transformers import RobertaForMaskedLM, RobertaForSequenceClassification, RobertaForTokenClassification, RobertaModel
from transformers.activations import GELUActivation
from transformers.models.roberta.modeling_roberta import RobertaClassificationHead, RobertaLMHead

from .bcos_conversion import Roles
from .bcos_fits import Fit, bert_fits
from .configuration_bcos_roberta import BcosRobertaConfig
from .modeling_bcos_text import BcosTextModelMixin


class BcosRobertaClassificationHead(RobertaClassificationHead):
    """Dense layer, activation and logits, from the first token; features [N, L, D] -> [N, num_labels]."""

    def complete(self) -> None:
        """Add the activation as a module."""
        self.activation = nn.Tanh()

    def forward(self, features: Tensor, **kwargs) -> Tensor:
        hidden = self.activation(self.dense(self.dropout(features[:, 0])))
        return self.out_proj(self.dropout(hidden))


class BcosRobertaLMHead(RobertaLMHead):
    """Dense layer, GELU, norm and decoder; features [N, L, D] -> [N, L, vocab_size]."""

    def complete(self) -> None:
        """Add the activation as a module."""
        self.activation = GELUActivation()

    def forward(self, features: Tensor, **kwargs) -> Tensor:
        return self.decoder(self.layer_norm(self.activation(self.dense(features))))


class _BcosRoberta(BcosTextModelMixin):
    config_class = BcosRobertaConfig
    roles = Roles(
        logits=("classifier", "classifier.out_proj"),
        head_activations=("pooler.activation", "classifier.activation"),
        fits=(
            *bert_fits(),
            Fit(r"(classifier\.)dense", then=(r"\1activation",), function="tanh"),
            Fit(r"classifier\.out_proj"),
            Fit(r"(lm_head\.)dense", then=(r"\1activation",), function="gelu"),
        ),
    )
    twins = {RobertaClassificationHead: BcosRobertaClassificationHead, RobertaLMHead: BcosRobertaLMHead}


class BcosRobertaModel(_BcosRoberta, RobertaModel):
    """B-cos RobertaModel: hidden states and a pooled output."""


class BcosRobertaForSequenceClassification(_BcosRoberta, RobertaForSequenceClassification):
    """B-cos RobertaForSequenceClassification."""


class BcosRobertaForTokenClassification(_BcosRoberta, RobertaForTokenClassification):
    """B-cos RobertaForTokenClassification."""


class BcosRobertaForMaskedLM(_BcosRoberta, RobertaForMaskedLM):
    """B-cos RobertaForMaskedLM; the decoder stays a linear layer tied to the embeddings."""
