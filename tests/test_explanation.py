"""Explanation: words from pieces, saving, indexing, and what is drawn of it."""

import html.parser
import re

import evaluate
import pytest
import torch
from conftest import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from bcos_hf import Explanation, bcosify
from bcos_hf.metrics import relative_residual
from bcos_hf.metrics.perturbation import FRACTIONS, area_under_curve, rationale


ROOT = __import__("pathlib").Path(__import__("bcos_hf").__file__).parent


def wordpiece(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##bel", "##ie", "film", "a", "."]))
    return BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))


def bpe(marker, pre, decoder):
    pieces = ["<pad>", "<s>", "</s>", "un", "b", "el", f"{marker}un", f"{marker}film", f"{marker}a", "film", *map(chr, range(97, 123)), marker]
    merges = []
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(dict.fromkeys(pieces))}, merges))
    backend.pre_tokenizer, backend.decoder = pre, decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.fixture
def model():
    return bcosify(tiny("bert"), keep_biases=True)


def test_wordpieces_become_words_on_either_side_of_padding(model, tmp_path):
    tokenizer = wordpiece(tmp_path)
    for side in ("right", "left"):
        tokenizer.padding_side = side
        inputs = tokenizer(["a unbelie film .", "film"], padding=True, return_tensors="pt")
        explanation = model.explain(**inputs, tokenizer=tokenizer, targets=[[0, 1]] * 2)
        words = explanation.merge_words()
        assert [[word for word in row if word] for row in words.tokens] == [["[CLS]", "a", "unbelie", "film", ".", "[SEP]"], ["[CLS]", "film", "[SEP]"]]
        torch.testing.assert_close(words.contributions.sum(-1), explanation.contributions.sum(-1))
        at = words.tokens[0].index("unbelie")
        pieces = [i for i, token in enumerate(explanation.tokens[0]) if token in ("un", "bel", "ie")]
        torch.testing.assert_close(words.contributions[0, :, at], explanation.contributions[0][:, pieces].sum(-1))


@pytest.mark.parametrize(
    "marker, pre, decoder",
    [
        ("Ġ", pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
        ("▁", pre_tokenizers.Metaspace(), decoders.Metaspace()),
    ],
)
def test_bpe_and_sentencepiece_pieces_become_words(model, marker, pre, decoder):
    tokenizer = bpe(marker, pre, decoder)
    inputs = tokenizer(["unbel film a"], return_tensors="pt", return_token_type_ids=False)
    explanation = model.explain(**inputs, tokenizer=tokenizer)
    assert explanation.merge_words().tokens == [["unbel", "film", "a"]]


def test_merging_needs_tokens(model):
    with pytest.raises(ValueError, match="tokenizer"):
        model.explain(input_ids=torch.tensor([[5, 6]])).merge_words()


def test_saving_indexing_and_length(model, tmp_path):
    tokenizer = wordpiece(tmp_path)
    inputs = tokenizer(["a film .", "film"], padding=True, return_tensors="pt")
    explanation = model.explain(**inputs, tokenizer=tokenizer, contrast=1)
    explanation.save(tmp_path / "e.safetensors")
    loaded = Explanation.load(tmp_path / "e.safetensors")
    for name in ("logits", "targets", "contributions", "constant", "residual", "weights", "contrast"):
        assert torch.equal(getattr(loaded, name), getattr(explanation, name))
    assert loaded.tokens == explanation.tokens and loaded.labels == explanation.labels and len(loaded) == 2
    assert torch.equal(loaded[-1].contributions, explanation.contributions[1:]) and loaded[1].tokens == explanation.tokens[1:]
    with pytest.raises(IndexError):
        loaded[2]
    assert [path.name for path in tmp_path.glob(".*")] == []


class Strict(html.parser.HTMLParser):
    """Collects text and fails on tags that do not nest."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.names = [], "", set()
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def made(tokens, label="a"):
    values = torch.linspace(-1, 2, len(tokens), dtype=torch.float64)
    logits = torch.stack([values.sum() + 0.25, torch.zeros(())])[None]
    constant = torch.tensor([[0.25]], dtype=torch.float64)
    given = Explanation(logits, torch.tensor([[0]]), values[None, None], constant, torch.zeros(1, 1), tokens=[tokens], labels=[label, "b"])
    return given


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6), st.text(max_size=8))
def test_pages_are_whole_escaped_and_add_up(tokens, label):
    page = made(tokens, label).to_html(title=label)
    parsed = Strict(page)
    assert "script" not in parsed.names and "http" not in re.sub(r"<bdi.*?</bdi>|<title>.*?</title>", "", page, flags=re.S)
    titles = [float(title.replace("\u2212", "-")) for title in re.findall(r'title="(\S+) · token', page)]
    assert sum(titles) == pytest.approx(made(tokens).contributions.sum().item(), abs=1e-6)


def test_markup_in_tokens_is_text(tmp_path):
    page = made(["<script>alert(1)</script>", '"><img src=x onerror=y>']).to_html(tmp_path / "deep" / "e.html")
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert (tmp_path / "deep" / "e.html").read_text(encoding="utf-8") == page
    assert "<html" not in made(["a"])._repr_html_() and made(["a"])._repr_html_().startswith("<style>")
    assert "first 1 of 3 tokens" in made(["a", "b", "c"]).to_html(max_tokens=1)


def test_padding_is_not_shown_and_failed_writes_leave_the_old_file(tmp_path):
    assert made(["a", "", "b"]).to_html().count("<bdi class") + made(["a", "", "b"]).to_html().count("<bdi title") == 2
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        made(["a"]).to_html(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_plot(tmp_path):
    made(["$x_1$", "\u4f60", "c"]).plot(tmp_path / "e.png", top=2)
    with Image.open(tmp_path / "e.png") as picture:
        assert min(picture.size) > 100


def test_rationale_is_the_published_rule():
    scores, counted = torch.tensor([[9.0, 1.0, 3.0, 2.0, 8.0]]), torch.tensor([[False, True, True, True, False]])
    assert rationale(scores, counted, 0.1).tolist() == [[False, False, True, False, False]]
    assert rationale(scores, counted, 0.7).tolist() == [[False, False, True, True, False]]
    assert area_under_curve([1.0] * 9) == pytest.approx(0.8)


def test_metrics_load_by_path():
    before, after = [0.9, 0.8], [[0.5] * len(FRACTIONS), [0.4] * len(FRACTIONS)]
    for name in ("comprehensiveness", "sufficiency"):
        metric = evaluate.load(str(ROOT / "metrics" / f"{name}.py"))
        made = metric.compute(predictions=after, references=before, random=[[0.8] * len(FRACTIONS)] * 2)
        assert made[name] == made[f"{name}_low"] == made[f"{name}_high"] == pytest.approx(0.4 * 0.8)  # of both texts
        assert made[f"{name}_random"] == pytest.approx(0.05 * 0.8) and made["n"] == 2
    metric = evaluate.load(str(ROOT / "metrics" / "completeness.py"))
    made = metric.compute(predictions=[[1.0, 2.0], [1.0, -1.0]], references=[3.0, 0.5])
    assert made["mean_relative_residual_low"] == 0 and made["mean_relative_residual_high"] == pytest.approx(0.25) and made["n"] == 2
    assert 0.25 < made["mean_relative_residual_random"] <= 2 and (made["mean_relative_residual"], made["seed"]) == (0.125, 0)
    assert made["max_relative_residual"] == pytest.approx(0.25) == relative_residual([[1.0, -1.0]], [0.0], [0.5])[0]
