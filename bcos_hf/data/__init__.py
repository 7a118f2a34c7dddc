"""From a data set to what a model takes, and the small assets that the demos run on."""

from .assets import ASSETS, Asset, cache_folder, extract, fetch, minilm_folder, vader_sdist
from .augmentation import Augmentation, mixup
from .cifar10 import cifar10
from .explanations import explain_dataset
from .image_inputs import image_processor, prepare_images, stacked
from .images import ImageColumns, load_image_dataset
from .keras_resnet import resnet50_folder
from .one_split import class_numbers, find_columns, load_split
from .onnx_vit import vit_s_folder
from .pictures import load_pictures
from .prompts import TEMPLATES, prompts_of
from .text import TextColumns, load_text_dataset, tokenize
from .vader import lexicon, movie_reviews, normalized, parse_lexicon, parse_ratings, split_rated


__all__ = [
    "ASSETS",
    "TEMPLATES",
    "Asset",
    "Augmentation",
    "ImageColumns",
    "TextColumns",
    "cache_folder",
    "cifar10",
    "class_numbers",
    "explain_dataset",
    "extract",
    "fetch",
    "find_columns",
    "image_processor",
    "lexicon",
    "load_image_dataset",
    "load_pictures",
    "load_split",
    "load_text_dataset",
    "minilm_folder",
    "mixup",
    "movie_reviews",
    "normalized",
    "parse_lexicon",
    "parse_ratings",
    "prepare_images",
    "prompts_of",
    "resnet50_folder",
    "split_rated",
    "stacked",
    "tokenize",
    "vader_sdist",
    "vit_s_folder",
]
