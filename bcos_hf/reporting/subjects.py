"""A subject is a trained model with the ways it is explained and the test data it is measured on; measures see nothing else of an experiment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

from bcos_hf import training
from bcos_hf.data import load_text_dataset, prompts_of, stacked
from bcos_hf.metrics import ZeroShotClassifier, class_embeddings, confident_texts
from bcos_hf.models.bcos_processors import saved_processor


TEXTS_AT_ONCE, PICTURES_AT_ONCE = 32, 25


@dataclass
class Subject:
    """One model of an experiment.

    Attributes:
        name: the model's. folder: where it was saved. arguments: the recipe's, parsed. seed: of its training, and of what measures draw.
        device: where it runs. explainers_of: makes callables like `explain`, by name, for a model. other: the same model trained with another seed.
    """

    name: str
    folder: Path
    arguments: tuple
    seed: int
    device: str
    explainers_of: Callable[[nn.Module], dict[str, Callable]]
    other: "Subject | None" = None

    @cached_property
    def model(self) -> nn.Module:
        """In evaluation mode; what is called gives logits."""
        return self.load().eval().to(self.device)

    @cached_property
    def explainers(self) -> dict[str, Callable]:
        """Name -> a callable like `explain`."""
        return self.explainers_of(self.model)

    def load(self) -> nn.Module:
        """The model that `folder` holds."""
        raise NotImplementedError

    def batches(self, count: int, size: int | None = None) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """What the model takes of the first `count` test items, on its device, and their labels, `size` at once (None: a usual number)."""
        raise NotImplementedError


class TextSubject(Subject):
    """A classifier of texts."""

    def load(self) -> nn.Module:
        return AutoModelForSequenceClassification.from_pretrained(self.folder)

    @cached_property
    def tokenizer(self):
        """The model's."""
        return saved_processor(AutoTokenizer, self.folder)

    @cached_property
    def rows(self) -> tuple:
        """The test split, in an order drawn once, and its columns: many data sets are sorted by their labels, and `count` texts are to be of all classes."""
        d = self.arguments[1]
        data, columns = load_text_dataset(
            d.dataset_name, d.dataset_config_name, d.train_file, d.validation_file, d.test_file, d.dataset_revision, d.text_column, d.second_text_column,
            d.label_column, d.max_train_samples, d.max_eval_samples, seed=self.arguments[2].data_seed or 0,
        )  # fmt: skip
        return data["test"].shuffle(seed=0), columns

    @property
    def texts(self) -> list[str]:
        """Of the test split."""
        return list(self.rows[0][self.rows[1].text])

    @property
    def labels(self) -> list[int]:
        """Of the test split."""
        return list(self.rows[0][self.rows[1].label])

    @cached_property
    def confident(self) -> dict[int, list[tuple[str, float]]]:
        """Of the test split, what `confident_texts` finds."""
        return confident_texts(self.model, self.tokenizer, self.texts, self.labels)

    def batches(self, count: int, size: int | None = None) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        items = sorted(zip(self.texts[:count], self.labels[:count], strict=True), key=lambda item: len(item[0]))  # little padding
        for start in range(0, len(items), size := size or TEXTS_AT_ONCE):
            texts, labels = zip(*items[start : start + size], strict=True)
            made = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.arguments[1].max_length, return_tensors="pt")
            yield {name: value.to(self.device) for name, value in made.items()}, torch.tensor(labels, device=self.device)


class PictureSubject(Subject):
    """A classifier of pictures."""

    def load(self) -> nn.Module:
        return AutoModelForImageClassification.from_pretrained(self.folder)

    @cached_property
    def processor(self):
        """The model's."""
        return saved_processor(AutoImageProcessor, self.folder)

    @cached_property
    def inputs(self) -> dict:
        """What the splits give the model."""
        return training.image_inputs(self.processor, *self.arguments[1:])

    @cached_property
    def pictures(self) -> tuple[Tensor, Tensor]:
        """The test split, in an order drawn once, as that of texts: pixel_values [M, C, H, W] and labels [M], on the CPU."""
        pixels, labels = stacked(self.inputs["test"], "test pictures")
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        return pixels[order], labels[order]

    @property
    def larger(self) -> dict:
        """What forward() needs besides to take pictures of another size: nothing, of a CNN."""
        return {} if len(self.config.to_dict().get("hidden_sizes") or []) else {"interpolate_pos_encoding": True}

    @property
    def config(self):
        """Of the image tower."""
        return self.model.config

    def batches(self, count: int, size: int | None = None) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        for pixels, labels in zip(*(part[:count].split(size or PICTURES_AT_ONCE) for part in self.pictures), strict=True):
            yield {"pixel_values": pixels.to(self.device)}, labels.to(self.device)


class PromptSubject(PictureSubject):
    """A model of pictures and texts as a zero-shot classifier of the recipe's `templates`; logits are cosines times the model's own scale."""

    def load(self) -> nn.Module:
        model = AutoModel.from_pretrained(self.folder).eval().to(self.device)
        classes = class_embeddings(model, saved_processor(AutoTokenizer, self.folder), prompts_of(self.names, self.arguments[0].templates))
        return ZeroShotClassifier(model, classes, model.logit_scale.exp().item())

    @cached_property
    def inputs(self) -> dict:
        return self._inputs[0]

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return self._inputs[1]

    @cached_property
    def _inputs(self) -> tuple:
        return training.clip_inputs(self.processor, *self.arguments[1:])

    @property
    def config(self):
        return self.model.model.config.vision_config
