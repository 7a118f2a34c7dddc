"""Figures and pages of explained pictures: what they show, and that they stand alone."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import batch_of, tiny
from PIL import Image
from test_explanation import Strict

from bcos_hf import Explanation, bcosify
from bcos_hf.visualization.image import gradient_to_image, on_white, smoothed, to_picture
from bcos_hf.visualization.image_html import image_to_html
from bcos_hf.visualization.image_plot import plot_image, plot_image_rows
from bcos_hf.visualization.image_reading import read_image


@pytest.fixture(scope="module")
def explanation():
    """Three pictures of a tiny ResNet, two targets each, one of them held against another class."""
    model = bcosify(tiny("resnet"))
    made = model.explain(**batch_of("resnet"), targets=[[0, 1]] * 3, contrast=[[2, 0]] * 3)
    return replace(made, labels=["<b>$a$", "b & c", 'd" onerror="e'])


def png_size(data):
    with Image.open(io.BytesIO(data)) as picture:
        picture.verify()
        return picture.size


def test_a_reading_is_what_the_explanation_says(explanation):
    reading = read_image(explanation, 1, 1, smooth=3)
    torch.testing.assert_close(reading.colours, gradient_to_image(explanation.weights[1, 1], explanation.contributions[1, 1], 3))
    torch.testing.assert_close(reading.values, smoothed(explanation.contributions[1, 1], 3))
    assert reading.total + reading.constant == pytest.approx(explanation.explained_logits[1, 1].item(), rel=1e-6)
    assert reading.explained_against == "b & c rather than <b>$a$" and reading.contrast.logit == explanation.logits[1, 0].item()
    bare = read_image(replace(explanation, weights=None, pixel_values=None))
    assert bare.colours is None and bare.picture is None
    unencoded = replace(explanation, weights=explanation.weights[:, :, :3])
    assert read_image(unencoded).colours is None
    with pytest.raises(IndexError, match="example of 3"):
        read_image(explanation, 3)
    with pytest.raises(ValueError, match="pictures"):
        read_image(replace(explanation, contributions=explanation.contributions[..., 0]))


def test_figures_show_everything_and_are_whole_files(explanation, tmp_path):
    figure = plot_image(explanation, 1, 1, mean=0.5, std=0.5, smooth=3, path=tmp_path / "deep" / "e.png")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["e.png"] and min(png_size((tmp_path / "deep" / "e.png").read_bytes())) > 300
    (part,) = figure.subfigs
    axes = [ax for ax in part.axes if ax.get_xlabel()]
    assert [ax.get_xlabel().partition(",")[0] for ax in axes] == ["input", "colour explanation", "contributions", "probability (sigmoid)"]
    assert "mean of 3 × 3" in axes[2].get_xlabel()
    np.testing.assert_allclose(axes[2].images[0].get_array(), smoothed(explanation.contributions[1, 1], 3))
    title = part.get_suptitle()
    assert title.startswith(r"b & c rather than <b>\$a\$") and "sum of contributions" in title and "logit difference" in title
    widths = [bar.get_width() for bar in axes[3].patches]
    assert widths == pytest.approx(explanation.logits[1].sigmoid().sort(descending=True).values.tolist())
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        plot_image(explanation, path=tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "folder"]


def bars(figure):
    return sum(len(ax.patches) for ax in figure.subfigs[0].axes if ax.get_xlabel().startswith("probability"))


def test_the_explained_class_is_always_among_the_strongest(explanation):
    lowest = explanation.logits[0].argmin()
    alone = replace(explanation, targets=explanation.targets.clone().fill_(lowest), contrast=None)
    assert [bars(plot_image(alone, top=top)) for top in (0, 1, 3)] == [1, 2, 3]


def test_rows_are_one_an_input(explanation, tmp_path):
    parts = [explanation[:2], replace(explanation[2], weights=None, pixel_values=None)]
    figure = plot_image_rows(parts, smooth=None, path=tmp_path / "rows.png")
    assert len(figure.subfigs) == 3 and [sum(bool(ax.images) for ax in part.axes) for part in figure.subfigs] == [3, 3, 1]
    photo = Image.new("L", (20, 10), 255)
    (part,) = plot_image_rows(explanation[0], pictures=[photo]).subfigs
    assert part.axes[0].images[0].get_array().shape == (10, 20, 3)
    with pytest.raises(ValueError, match="a picture for each"):
        plot_image_rows(explanation, pictures=[photo])
    with pytest.raises(ValueError, match="at least one"):
        plot_image_rows([])
    with pytest.raises(ValueError, match="picture: expected a PIL image"):
        plot_image(explanation, picture=torch.zeros(3, 8, 8))


class Page(Strict):
    """Knows the element that has no end, and which attributes it has."""

    def handle_starttag(self, tag, attrs):
        if tag != "img":
            return super().handle_starttag(tag, attrs)
        assert {name for name, _ in attrs} <= {"class", "src", "width", "height", "alt"}


def test_pages_are_whole_escaped_and_alone(explanation, tmp_path):
    page = image_to_html(explanation, tmp_path / "deep" / "e.html", title="<script>alert(1)</script>", smooth=3)
    assert (tmp_path / "deep" / "e.html").read_text(encoding="utf-8") == page and [p.name for p in (tmp_path / "deep").iterdir()] == ["e.html"]
    parsed = Page(page)
    assert "script" not in parsed.names and 'd" onerror="e' in parsed.text and "<b>$a$" in parsed.text
    assert not re.findall(r"(?:src|href)=\"(?!data:image/png;base64,)|https?:|url\(|@import", page)
    assert parsed.text.count("sum of contributions") == 6 and "Rather than" in parsed.text and "Example 3 of 3" in parsed.text
    pictures = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)]
    assert [png_size(data) for data in pictures] == [(16, 16)] * 18
    fragment = image_to_html(replace(explanation[0], weights=None), fragment=True)
    assert fragment.startswith("<style>") and "<html" not in fragment and fragment.count("<img") == 4
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        image_to_html(explanation, tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == []


def test_what_is_in_a_page_is_the_picture(explanation):
    page, mean = image_to_html(explanation[0], smooth=3, mean=[0.5, 0.4, 0.3], std=0.2), [0.5, 0.4, 0.3]
    colours = gradient_to_image(explanation.weights[0, 0], explanation.contributions[0, 0], 3)
    wanted = (to_picture(explanation.pixel_values[0], mean, 0.2), on_white(colours))
    for data, picture in zip(re.findall(r"base64,([^\"]+)", page)[:2], wanted, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(data))) as read:
            np.testing.assert_array_equal(np.array(read), (picture * 255).round().byte())


def test_numbers_that_are_none_are_drawn_as_nothing(explanation):
    broken = replace(explanation[0], contributions=explanation.contributions[:1] * torch.nan)
    assert image_to_html(broken).count("<img") == 6


def test_one_pixel_of_nothing_is_drawn():
    zero = torch.zeros(1, 1)
    nothing = Explanation(zero, zero.long(), torch.zeros(1, 1, 1, 1), zero, zero, torch.zeros(1, 1, 2, 1, 1), pixel_values=torch.zeros(1, 1, 1, 1))
    assert bars(plot_image(nothing)) == 1
    assert image_to_html(nothing).count("<img") == 3
