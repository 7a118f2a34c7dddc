"""[x, 1 - x] on pretrained weights: with B = 1 and biases the twin of an image in [0, 1] is the standard model of the normalized image, padding included."""

import pytest
import torch
import transformers
from conftest import EMBEDDERS, SAME_IMAGE, tiny
from PIL import Image

from bcos_hf import bcosify
from bcos_hf.data.image_inputs import image_processor


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def processor(**fields):
    return transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=MEAN, image_std=STD, **fields)


def normalized(x):
    return (x - x.new_tensor(MEAN).view(-1, 1, 1)) / x.new_tensor(STD).view(-1, 1, 1)


def test_it_is_the_standard_model(image_family):
    standard = tiny(image_family)
    twin = bcosify(standard, processor=processor(do_normalize=False), **{**SAME_IMAGE, "input_encoding": "add_inverse"})
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(
        twin(x).logits, standard(normalized(x)).logits, rtol=0, atol=1e-5
    )  # mean and deviation are float32
    assert twin.explain(x).relative_residual.max() < 1e-8


@pytest.mark.parametrize("kind", ["clip", "siglip", "clip_resnet", "dual_encoder"])
def test_towers(kind):
    torch.manual_seed(0)
    standard = (
        transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **EMBEDDERS[kind])).eval().double()
    )
    fields = dict(b=1.0, keep_biases=True, weight_norm="none", max_pool="keep", input_encoding="add_inverse")
    twin = bcosify(
        standard, processor=processor(), **fields, **({"keep_positions": True} if kind == "clip_resnet" else {})
    )
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    expected = standard.get_image_features(pixel_values=normalized(x)).pooler_output
    torch.testing.assert_close(twin.image_embeds(x), expected, rtol=0, atol=1e-5)


def test_a_folder_s_own_processor_counts_and_gives_such_images(tmp_path):
    standard = tiny("resnet").float()
    standard.save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    image = Image.effect_noise((16, 16), 60).convert("RGB")
    twin = bcosify(tmp_path, **{**SAME_IMAGE, "input_encoding": "add_inverse"})
    unit = image_processor(tmp_path, twin.config, "add_inverse")(image, return_tensors="pt")["pixel_values"]
    assert 0 <= unit.min() < unit.max() <= 1
    expected = standard(processor()(image, return_tensors="pt")["pixel_values"]).logits
    torch.testing.assert_close(twin(unit).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_normalization_is_said(caplog):
    caplog.set_level("WARNING", "transformers")
    bcosify(tiny("vit"), input_encoding="add_inverse")
    assert "no image processor" in caplog.text
