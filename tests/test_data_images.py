"""The laws of picture data: columns and labels are found and checked, any kind of picture becomes RGB, inputs are those of the stock processor."""

import io
import pickle
import random
from importlib import import_module

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Image, Value
from PIL import Image as Pillow
from transformers import BitImageProcessorPil, ConvNextImageProcessorPil, ResNetConfig, ViTConfig, ViTImageProcessorPil

from bcos_hf.data.augmentation import Augmentation
from bcos_hf.data.image_files import decode, rgb
from bcos_hf.data.image_inputs import LEFT_OUT, ImageInputs, image_processor, output_size, prepare_images, resized
from bcos_hf.data.images import ImageColumns, load_image_dataset


COLUMNS = ImageColumns("image", "label")
CLASSES = ClassLabel(names=["cat", "dog"])
PROCESSOR = ViTImageProcessorPil(size={"height": 12, "width": 10})


pytestmark = pytest.mark.usefixtures("own_cache")


def picture(seed=0, size=(16, 12), mode="RGB"):
    generator = np.random.default_rng(seed)
    return Pillow.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def content(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def rows(count=12, label=CLASSES, **columns):
    values = {"image": [content(picture(i)) for i in range(count)], "label": [i % 2 for i in range(count)], **columns}
    data = Dataset.from_dict(values).cast_column("label", label)
    return data if "image" in columns else data.cast_column("image", Image())


@pytest.fixture
def save(tmp_path):
    def write(name, data=None, **fields):
        data = rows(**fields) if data is None else data
        data.to_parquet(tmp_path / name)
        return tmp_path / name

    return write


# -- loading


def test_parquet_files_give_pictures_and_labels(save):
    save("part-1.parquet"), save("part-2.parquet")
    data, columns = load_image_dataset(None, train_file=save("a.parquet").parent / "part-*.parquet", validation_file=save("b.parquet"))
    assert columns == COLUMNS and list(data) == ["train", "validation", "test"] and len(data["train"]) == 24
    assert data["train"].features == {"image": Image(), "label": CLASSES}
    assert np.array_equal(np.asarray(data["test"][3]["image"]), np.asarray(picture(3)))


def test_a_folder_of_pictures_has_a_class_per_subfolder(tmp_path):
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            for i in range(4):
                picture(i).save(tmp_path / "set" / split / label / f"{i}.png")
    data, columns = load_image_dataset(str(tmp_path / "set"), max_train_samples=5, seed=2)
    again, _ = load_image_dataset(str(tmp_path / "set"), max_train_samples=5, seed=2)
    assert columns == COLUMNS and data["train"].features["label"].names == ["cat", "dog"]
    assert {split: len(part) for split, part in data.items()} == {"train": 5, "validation": 8, "test": 8}
    assert data["train"]["label"][:] == again["train"]["label"][:]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_embedded_data_set_is_taken(streaming, monkeypatch):
    splits = DatasetDict({split: rows() for split in ("train", "validation", "test")})
    monkeypatch.setattr(import_module("bcos_hf.data.cifar10"), "cifar10", lambda **arguments: splits)
    data, _ = load_image_dataset("cifar10", streaming=streaming, max_eval_samples=4)
    assert len(list(data["train"])) == 12 and len(list(data["validation"])) == 4


def test_columns_are_found_by_name_or_type(save):
    data = rows(number=[1] * 12).rename_columns({"image": "scan", "label": "fine"})
    assert load_image_dataset(None, train_file=save("a.parquet", data))[1] == ImageColumns("scan", "fine")
    raw = rows(label=Value("int64"), image=[content(picture(i)) for i in range(12)])  # bytes, as another writer of parquet leaves them
    data, columns = load_image_dataset(None, train_file=save("b.parquet", raw))
    assert columns == COLUMNS and data["train"].features["label"].names == ["0", "1"] and data["train"][0]["image"].mode == "RGB"
    with pytest.raises(ValueError, match=r"image_column='number': expected one of the columns \['scan'\]"):
        load_image_dataset(None, train_file=save("a.parquet", rows().rename_column("image", "scan")), image_column="number")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [1] * 12}, "expected a column of pictures"),
        ({"label": Value("int64"), "number": [1] * 12, "image": [content(picture())] * 9 + [None] * 3}, "expected a picture in every row, found 3 of 12 rows"),
    ],
)
def test_what_cannot_be_right_is_refused(columns, message, save):
    with pytest.raises(ValueError, match=message):
        load_image_dataset(None, train_file=save("a.parquet", rows(**columns)))


def test_labels_must_be_classes(save):
    numbers = rows().remove_columns("label").add_column("label", [1, 2, 3, 5] * 3)
    with pytest.raises(ValueError, match=r"found \[1, 2, 3, 5\]"):
        load_image_dataset(None, train_file=save("a.parquet", numbers))


def test_files_that_are_no_data_are_refused(save, tmp_path):
    for arguments, error, message in [
        ({"train_file": tmp_path / "gone.parquet"}, FileNotFoundError, "gone.parquet"),
        ({"train_file": tmp_path / "a.csv"}, ValueError, "expected a parquet file"),
        ({"test_file": save("a.parquet")}, ValueError, "expected a split 'train'"),
        ({}, ValueError, "either name_or_path or files"),
    ]:
        with pytest.raises(error, match=message):
            load_image_dataset(None, **arguments)


# -- streams


def test_a_stream_has_the_rows_of_the_files(save):
    files = {"train_file": save("a.parquet"), "validation_file": save("b.parquet", count=6)}
    data, columns = load_image_dataset(None, **files, streaming=True)
    assert columns == COLUMNS and [row["label"] for row in data["test"]] == [0, 1] * 3
    inputs = prepare_images(data, PROCESSOR, COLUMNS, shuffle_buffer=4)
    whole = prepare_images(load_image_dataset(None, **files)[0], PROCESSOR, COLUMNS)
    for streamed, stored in zip(inputs["validation"], whole["validation"], strict=True):
        assert torch.equal(streamed["pixel_values"], stored["pixel_values"]) and streamed["labels"] == stored["labels"]


def test_a_stream_for_training_never_ends_and_is_shuffled_anew(save):
    data, _ = load_image_dataset(None, train_file=save("a.parquet"), validation_file=save("b.parquet"), streaming=True)
    stream = iter(prepare_images(data, PROCESSOR, COLUMNS, shuffle_buffer=12)["train"])
    known = {tuple(ImageInputs("train", COLUMNS, PROCESSOR)(row, 0)["pixel_values"].flatten()[:4].tolist()): i for i, row in enumerate(undecoded(rows()))}
    order = [known[tuple(next(stream)["pixel_values"].flatten()[:4].tolist())] for _ in range(96)]
    assert set(order) == set(range(12)) and order[:12] != order[12:24] and order[:12] != list(range(12))


def test_a_seeded_part_of_a_stream(save):
    files = {"train_file": save("a.parquet"), "validation_file": save("b.parquet"), "streaming": True, "max_eval_samples": 5}
    first, again, other = (load_image_dataset(None, **files, seed=seed)[0]["validation"] for seed in (1, 1, 2))
    first, again, other = ([np.asarray(row["image"]).sum() for row in part] for part in (first, again, other))
    assert first == again != other and len(first) == 5
    data, _ = load_image_dataset(None, **files, max_train_samples=3)
    inputs = prepare_images(data, PROCESSOR, COLUMNS)
    assert len({float(row["pixel_values"].sum()) for row, _ in zip(inputs["train"], range(30), strict=False)}) == 3


def test_a_stream_must_know_its_labels_and_have_a_validation_split(save):
    with pytest.raises(ValueError, match="expected a ClassLabel as labels of a stream"):
        load_image_dataset(None, train_file=save("a.parquet", label=Value("int64")), validation_file=save("a.parquet", label=Value("int64")), streaming=True)
    with pytest.raises(ValueError, match="expected a validation split or file"):
        load_image_dataset(None, train_file=save("b.parquet"), streaming=True)


def test_hidden_test_labels_of_a_stream_are_said_and_not_used(save, caplog):
    files = {"train_file": save("a.parquet"), "validation_file": save("b.parquet", count=4), "test_file": save("c.parquet")}
    hidden = rows().remove_columns("label").add_column("label", [-1] * 12).cast_column("label", CLASSES)
    data, _ = load_image_dataset(None, **{**files, "test_file": save("d.parquet", hidden)}, streaming=True)
    assert len(list(data["test"])) == 4 and "its labels are hidden" in caplog.text
    assert len(list(load_image_dataset(None, **files, streaming=True)[0]["test"])) == 12


# -- pictures


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_any_mode_becomes_rgb(mode):
    image = picture(mode="RGB").convert("L").convert(mode) if mode in ("1", "LA") else picture(mode=mode)
    converted = rgb(image)
    assert converted.mode == "RGB" and converted.size == image.size
    if mode in ("L", "P", "RGBA"):
        assert np.array_equal(np.asarray(converted), np.asarray(image.convert("RGB")))


def test_sixteen_bits_keep_their_range_and_transparent_palettes_their_colours():
    deep = Pillow.fromarray(np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16))
    assert np.array_equal(np.asarray(decode(content(deep)))[..., 0].ravel(), np.arange(256))
    palette = picture(mode="P")
    palette.info["transparency"] = bytes([0, 128] * 128)
    assert np.array_equal(np.asarray(rgb(palette)), np.asarray(palette.convert("RGBA"))[..., :3])


def test_a_picture_taken_sideways_is_put_upright():
    file, exif = io.BytesIO(), Pillow.Exif()
    exif[0x0112] = 6
    picture().save(file, "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(file.getvalue())), np.rot90(np.asarray(picture()), -1))


def undecoded(data):
    return data.cast_column("image", Image(decode=False))


@pytest.mark.parametrize(
    "processor",
    [
        PROCESSOR,
        ConvNextImageProcessorPil(size={"shortest_edge": 14}),
        BitImageProcessorPil(size={"shortest_edge": 14}, crop_size={"height": 11, "width": 11}, do_center_crop=True),
        ViTImageProcessorPil(size={"height": 9, "width": 9}, do_rescale=False, image_mean=[120.0, 110.0, 100.0], image_std=[1.0, 1.0, 1.0]),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_evaluation_is_the_stock_processor_bit_for_bit(processor):
    data = rows(4)
    inputs = prepare_images(DatasetDict({"validation": data}), processor, COLUMNS)["validation"]
    for made, row in zip(inputs, data, strict=True):
        assert torch.equal(made["pixel_values"], processor(row["image"], return_tensors="pt")["pixel_values"][0])
        assert made["labels"] == row["label"] and made["pixel_values"].shape[1:] == output_size(processor)


def test_augmented_pictures_are_normalised_as_the_others_and_only_in_training():
    half = Augmentation((12, 10), smallest_crop=1.0, flip=1.0)
    data = DatasetDict({"train": rows(3), "test": rows(3)})
    inputs = prepare_images(data, PROCESSOR, COLUMNS, half)
    random.seed(0)
    made = inputs["train"][1]["pixel_values"]
    random.seed(0)
    slow = torch.tensor((np.asarray(half(data["train"][1]["image"])) / 255 - 0.5) / 0.5).permute(2, 0, 1)
    torch.testing.assert_close(made, slow.float())
    assert torch.equal(inputs["test"][1]["pixel_values"], PROCESSOR(data["test"][1]["image"], return_tensors="pt")["pixel_values"][0])


def broken(count=4):
    values = undecoded(rows(count)).to_dict()
    values["image"][1] = {"bytes": content(picture(1, (64, 64)))[:200], "path": "half.png"}
    values["image"][2] = {"bytes": b"not a picture", "path": None}
    return Dataset.from_dict(values, features=rows(1).features)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_broken_picture_is_named_or_left_out_and_counted(streaming, caplog):
    data = {"validation": broken().to_iterable_dataset() if streaming else broken()}
    with pytest.raises(ValueError, match=r"validation: picture 1 \(half.png\) cannot be read: .*broken='skip'"):
        list(prepare_images(data, PROCESSOR, COLUMNS)["validation"])
    made = list(prepare_images(data, PROCESSOR, COLUMNS, broken="skip")["validation"])
    assert [row["labels"] for row in made] == [0, LEFT_OUT, LEFT_OUT, 1] and {row["pixel_values"].shape for row in made} == {(3, 12, 10)}
    assert "picture 2 cannot be read" in caplog.text and "left out, as 2 so far" in caplog.text
    with pytest.raises(ValueError, match="broken: expected one of"):
        prepare_images(data, PROCESSOR, COLUMNS, broken="ignore")


def test_a_picture_file_that_is_not_there_is_an_error_either_way(tmp_path):
    data = Dataset.from_dict({"image": [str(tmp_path / "gone.png")], "label": [0]}).cast_column("image", Image())
    with pytest.raises(FileNotFoundError):
        prepare_images({"test": data}, PROCESSOR, COLUMNS, broken="skip")["test"][0]


def test_inputs_travel_to_loading_workers():
    inputs = prepare_images({"train": rows(8)}, PROCESSOR, COLUMNS, Augmentation((12, 10), operations=2))["train"]
    assert pickle.loads(pickle.dumps(inputs.inputs))(undecoded(rows(1))[0], 0)["labels"] == 0
    loader = torch.utils.data.DataLoader(inputs, batch_size=4, num_workers=1)
    assert [batch["pixel_values"].shape for batch in loader] == [(4, 3, 12, 10)] * 2


# -- processors


def test_the_processor_is_the_saved_one_or_that_of_the_family(tmp_path, caplog):
    BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    saved = image_processor(tmp_path, ViTConfig())
    assert isinstance(saved, BitImageProcessorPil) and output_size(saved) == (28, 28) and saved.do_normalize
    family = image_processor(tmp_path / "none", ResNetConfig())
    assert isinstance(family, ConvNextImageProcessorPil) and output_size(family) == (224, 224) and "there is no image processor" in caplog.text
    assert output_size(image_processor(tmp_path / "none", ViTConfig(image_size=48))) == (48, 48)
    unit = image_processor(tmp_path, ViTConfig(), "add_inverse")(picture(), return_tensors="pt")["pixel_values"]
    assert 0 <= unit.min() < 0.2 and 0.8 < unit.max() <= 1


def test_a_processor_for_another_size_shows_as_large_a_part():
    cropping = resized(BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, do_center_crop=True), 56)
    assert output_size(cropping) == (56, 56) and cropping.size.shortest_edge == 64
    with pytest.raises(ValueError, match="expected one size for all pictures"):
        output_size(BitImageProcessorPil(size={"shortest_edge": 32}, do_center_crop=False))
