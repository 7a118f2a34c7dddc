"""From a data set to what a model takes, and the small assets that the demos run on."""

from .assets import ASSETS, Asset, cache_folder, extract, fetch, minilm_folder, vader_sdist
from .cifar10 import cifar10
from .keras_resnet import resnet50_folder
from .onnx_vit import vit_s_folder
from .text import TextColumns, load_text_dataset, tokenize
from .vader import lexicon, movie_reviews, normalized, parse_lexicon, parse_ratings, split_rated


__all__ = [
    "ASSETS",
    "Asset",
    "TextColumns",
    "cache_folder",
    "cifar10",
    "extract",
    "fetch",
    "lexicon",
    "load_text_dataset",
    "minilm_folder",
    "movie_reviews",
    "normalized",
    "parse_lexicon",
    "parse_ratings",
    "resnet50_folder",
    "split_rated",
    "tokenize",
    "vader_sdist",
    "vit_s_folder",
]
