"""B-cos networks for transformers: pretrained models made inherently interpretable. Importing this registers every Auto class."""

from .models import BcosImageExplanationPipeline, bcosify
from .models.bcos_dynamic import explanation_mode
from .models.bcos_explanation import Explanation


__version__ = "0.1.0"
__all__ = ["BcosImageExplanationPipeline", "Explanation", "bcosify", "explanation_mode"]
