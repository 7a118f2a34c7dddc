"""What calibrates a conversion: every form of inputs gives the same batches; what does not fit is refused by name."""

import numpy as np
import pytest
import torch
from conftest import batch_of, tiny
from datasets import Dataset
from PIL import Image
from transformers import BertTokenizerFast, ViTImageProcessorPil

from bcos_hf import bcosify, refit_
from bcos_hf.calibration import calibration_batches
from bcos_hf.models.bcos_layers import Bcos


WORDS = ["a", "film", "good", "bad", "dull", "very", "not"]
TEXTS = [" ".join(WORDS[i % 7 :] + WORDS[: i % 3]) for i in range(24)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return BertTokenizerFast(vocab=str(file))


@pytest.fixture(scope="module")
def bert():
    return bcosify(tiny("bert"), weight_norm="none")


@pytest.fixture(scope="module")
def vit():
    return bcosify(tiny("vit"), weight_norm="none")


def processor(**settings):
    return ViTImageProcessorPil(**{"size": {"height": 16, "width": 16}, **settings})


def images(count=6):
    """Of several sizes and modes."""
    random = np.random.default_rng(0)
    rgb = [Image.fromarray(random.integers(0, 255, (12 + i, 20, 3), dtype=np.uint8)) for i in range(count)]
    return [image.convert(("RGB", "L", "RGBA", "P", "CMYK", "1")[i % 6]) for i, image in enumerate(rgb)]


def equal(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def test_texts_as_a_list_a_generator_or_a_column(bert, tokenizer):
    rows = Dataset.from_dict({"text": TEXTS, "label": [0] * len(TEXTS)})
    made, pixels = calibration_batches(bert, TEXTS, tokenizer)
    assert pixels is None and sum(len(batch["input_ids"]) for batch in made) == len(TEXTS)
    assert equal(made, calibration_batches(bert, (text for text in TEXTS), tokenizer)[0])
    assert equal(made, calibration_batches(bert, rows["text"], tokenizer)[0])


def test_images_as_a_list_a_generator_or_a_column(vit):
    made, (mean, std) = calibration_batches(
        vit, images(), processor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    )
    assert made[0]["pixel_values"].shape == (6, 3, 16, 16)
    assert mean.tolist() == pytest.approx([0.1, 0.2, 0.3]) and std.tolist() == pytest.approx([0.4, 0.5, 0.6])
    again = calibration_batches(vit, iter(images()), processor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]))[
        0
    ]
    assert equal(made, again)
    stored = [image.convert("RGB") for image in images()]
    rows = Dataset.from_dict({"image": stored})
    assert equal(
        calibration_batches(vit, stored, processor())[0], calibration_batches(vit, rows["image"], processor())[0]
    )


def test_images_in_0_to_1_and_what_the_standard_model_gets(tmp_path):
    """z = (x - mean) / std, whatever the processor rescales by; one that does not normalize has no mean."""
    twin = bcosify(tiny("resnet"), weight_norm="none", input_encoding="add_inverse")
    for settings in (
        {},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {"do_normalize": False},
    ):
        own = processor(**settings)
        own.save_pretrained(tmp_path)
        (batch,), (mean, std) = calibration_batches(twin, images(), source=tmp_path)
        wanted = torch.cat([own(image.convert("RGB"), return_tensors="pt")["pixel_values"] for image in images()])
        x = batch["pixel_values"]
        assert x.min() >= 0 and x.max() <= 1
        torch.testing.assert_close((x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1), wanted, atol=1e-5, rtol=1e-5)


def test_tensors_and_batches(bert, vit):
    batch = batch_of("bert")
    assert calibration_batches(bert, [batch["input_ids"]])[0][0].keys() == {"input_ids"}
    assert calibration_batches(bert, [{**batch, "labels": torch.zeros(3)}])[0][0].keys() == batch.keys()
    assert calibration_batches(vit, [batch_of("vit")["pixel_values"]])[0][0].keys() == {"pixel_values"}
    loader = torch.utils.data.DataLoader([{"input_ids": row, "label": 1} for row in batch["input_ids"]], batch_size=2)
    assert len(calibration_batches(bert, loader)[0]) == 2


IDS, PIXELS = torch.full((2, 5), 7), torch.zeros(2, 3, 16, 16)
NAN = PIXELS.clone().index_fill_(0, torch.tensor(1), torch.nan)
BAD = {
    "one text": ("bert", "a film", TypeError, "a single str"),
    "one tensor": ("bert", IDS, TypeError, "a single Tensor"),
    "one batch": ("bert", {"input_ids": IDS}, TypeError, "a single dict"),
    "no iterable": ("bert", 3, TypeError, "a single int"),
    "an empty list": ("bert", [], ValueError, "got none"),
    "an empty generator": ("bert", (text for text in []), ValueError, "got none"),
    "labels": ("bert", [0, 1, 2], ValueError, "Labels are not needed"),
    "names of labels": ("bert", ["pos", "neg"] * 20, ValueError, "Are they labels"),
    "rows": ("bert", [{"text": "a film", "label": 1}], ValueError, "give the column of its inputs"),
    "a missing text": ("bert", ["a film", None], ValueError, "number 1 is without a value"),
    "texts and images": ("vit", [*images(1), "a film"], ValueError, "number 1 is of str"),
    "empty texts": ("bert", ["", ""], ValueError, "only empty ones"),
    "images for texts": ("bert", images(2), ValueError, "expected texts, which the model takes, got images"),
    "texts for images": ("vit", TEXTS, ValueError, "expected images, which the model takes, got texts"),
    "pixels for texts": ("bert", [PIXELS], ValueError, "expected token ids"),
    "ids for images": ("vit", [IDS], ValueError, "expected pixel_values"),
    "a batch of pixels for texts": ("bert", [{"pixel_values": PIXELS}], ValueError, "expected input_ids in each batch"),
    "bytes": ("vit", [PIXELS.byte()], ValueError, "Convert images with the image processor"),
    "bytes in a batch": (
        "vit",
        [{"pixel_values": PIXELS.byte()}],
        ValueError,
        "Convert images with the image processor",
    ),
    "an array": ("vit", [np.zeros((16, 16, 3))], ValueError, "got ndarray"),
    "channels last": ("vit", [torch.zeros(2, 16, 16, 3)], ValueError, r"pixel_values \[N, 3, H, W\]"),
    "one channel": ("vit", [torch.zeros(2, 1, 16, 16)], ValueError, r"pixel_values \[N, 3, H, W\]"),
    "NaN": ("vit", [PIXELS, NAN], ValueError, "Look for NaN"),
    "words that are not there": ("bert", [IDS + 100], ValueError, "token ids from 0 to 89"),
    "a row for a batch": ("bert", [{"input_ids": IDS[0]}], ValueError, r"input_ids \[N, L\]"),
    "no row": ("bert", [IDS[:0]], ValueError, "expected inputs in each batch"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(name, bert, vit, tokenizer):
    family, inputs, error, message = BAD[name]
    twin, own = (bert, tokenizer) if family == "bert" else (vit, processor())
    standard = tiny(family)
    before = {name: value.clone() for name, value in standard.state_dict().items()}
    if name == "empty texts":
        own = lambda text, **_: {"input_ids": []}  # a tokenizer without special tokens
        own.model_max_length, own.pad = 9, None
    with pytest.raises(error, match=message):
        calibration_batches(twin, inputs, own)
    if not hasattr(inputs, "send"):  # a generator has been read
        with pytest.raises(error, match=message):
            bcosify(standard, calibration=inputs, processor=own)
    assert all(torch.equal(value, before[name]) for name, value in standard.state_dict().items())


def test_processors_that_do_not_fit(bert, vit, tokenizer):
    for twin, inputs, own, message in (
        (bert, TEXTS, None, "expected the model's tokenizer"),
        (vit, images(2), None, "expected the model's image processor"),
        (bert, TEXTS, processor(), "expected a tokenizer, to read texts with, got a ViTImageProcessorPil"),
        (vit, images(2), tokenizer, "expected an image processor, to read images with, got a BertTokenizer"),
        (vit, images(2), processor(do_resize=False), "that makes images of one size"),
    ):
        with pytest.raises(ValueError, match=message):
            calibration_batches(twin, inputs, own)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("bert", {"weight_norm": "unit"}, "weight_norm: a refit expects 'none'.*calibration"),
        ("bert", {"max_out": 2}, "max_out: a refit expects 1, got 2"),
        ("resnet", {"batch_norm": "centered"}, "expects batch_norm='uncentered'"),
    ],
)
def test_settings_that_cannot_be_refitted(family, fields, message):
    with pytest.raises(ValueError, match=message):
        bcosify(tiny(family), calibration=[batch_of(family)], **fields)


def test_a_learnable_b_starts_as_configured():
    twin = bcosify(tiny("bert"), calibration=[batch_of("bert")], b=1.5, learnable_b=True)
    learned = [layer.b for layer in twin.modules() if isinstance(layer, Bcos) and layer.initial_b > 1]
    assert learned and all(b.item() == 1.5 and b.requires_grad for b in learned)


def test_how_many_inputs_would_be_enough_is_said(caplog):
    batch = batch_of("bert")
    with pytest.raises(ValueError, match=r"expected at least 5 inputs for .*, got 3"):
        bcosify(tiny("bert"), calibration=[batch])
    twin = bcosify(tiny("bert"), calibration=[batch, batch])
    assert twin.conversion_report.calibration["samples"] == 6
    assert "had fewer rows than inputs" in caplog.text and "calibration inputs, in the place of 6, would" in caplog.text
    assert all(torch.isfinite(value).all() for value in twin.state_dict().values() if value.is_floating_point())


@pytest.mark.parametrize("failure", ["NaN", "error", "interrupt"])
def test_a_failure_on_the_way_leaves_no_trace(failure):
    standard = tiny("resnet")
    twin = bcosify(standard, weight_norm="none")
    state = {name: value.clone() for name, value in twin.state_dict().items()}
    pixels, modes = torch.randn(4, 3, 16, 16, dtype=torch.float64), twin.train().training
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in twin.modules()]
    batches, error, late = [{"pixel_values": pixels}, {"pixel_values": pixels.clone()}], ValueError, None
    if failure == "NaN":
        batches[1]["pixel_values"][-1, 0, 0, 0] = torch.nan
    else:
        error = KeyboardInterrupt if failure == "interrupt" else RuntimeError

        def fail(*_):
            raise error

        late = twin.resnet.encoder.stages[-1].register_forward_pre_hook(fail)
    with pytest.raises(error):
        refit_(twin, standard, batches, progress=False)
    if late is not None:
        late.remove()
    assert all(torch.equal(value, state[name]) for name, value in twin.state_dict().items())
    assert twin.training == modes and not twin.conversion_report.fits and twin.conversion_report.calibration is None
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in twin.modules()]
