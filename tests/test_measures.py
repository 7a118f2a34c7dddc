"""Measures of texts' explanations, and sanity checks: slow loops and other libraries beside the fast code, chance, perfect explanations, evaluate.load."""

from dataclasses import replace
from functools import partial
from itertools import combinations, permutations
from pathlib import Path
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import torch
import transformers
from conftest import batch_of, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn import metrics as reference
from test_decoders import tokenizer_of
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

import bcos_hf
from bcos_hf import bcosify
from bcos_hf.baselines import input_x_gradient
from bcos_hf.metrics import area_under_curve, faithfulness, faithfulness_areas, perturbation_drops, random_scores
from bcos_hf.metrics.bootstrap import bootstrap_interval, measured
from bcos_hf.metrics.contrastive_pairs import ContrastivePair, play_evidence_rank, token_of
from bcos_hf.metrics.cost import peak_tensor_memory
from bcos_hf.metrics.evidence_rank import expected_reciprocal_ranks, reciprocal_ranks
from bcos_hf.metrics.randomisation import as_it_was, randomisation_sensitivity
from bcos_hf.metrics.rank_agreement import rank_agreement, spearman
from bcos_hf.metrics.rationale_agreement import marked_tokens, precision_recall_area, rationale_agreement, span_f1
from bcos_hf.metrics.sequence_pairs import Pair, confident_texts, cut_texts, pair_inputs, play_sequence_pointing_game, sample_pairs
from bcos_hf.metrics.sequence_pointing_game import sequence_pointing_shares
from bcos_hf.metrics.word_valence import word_valence_interval
from bcos_hf.reporting.rationales import quoted_spans


quick = settings(max_examples=25, deadline=None, derandomize=True)
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"]


def maps(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metric(name, **inputs):
    return evaluate.load(str(Path(bcos_hf.__file__).parent / "metrics" / f"{name}.py")).compute(**inputs)


def ragged(*shape, seed=0):
    """Counted places, at least two a row, and holes among them."""
    counted = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    counted[:, :2] = True
    return counted


@pytest.fixture(params=["bert", "roberta"])
def tokenizer(request):
    """A word a token; [CLS] a [SEP] b [SEP], or <s> a </s> </s> b </s>."""
    cls, sep, pad, unk, process = {
        "bert": ("[CLS]", "[SEP]", "[PAD]", "[UNK]", processors.BertProcessing),
        "roberta": ("<s>", "</s>", "<pad>", "<unk>", processors.RobertaProcessing),
    }[request.param]
    numbers = {token: index for index, token in enumerate([pad, cls, sep, unk, *WORDS])}
    made = Tokenizer(models.WordLevel(numbers, unk_token=unk))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = process((sep, 2), (cls, 1))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token=pad, cls_token=cls, sep_token=sep, unk_token=unk)


def sentences(count, length, seed=0):
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, size=length)) for _ in range(count)]


# -- sequence pointing game


@quick
@given(st.integers(0, 1000), st.booleans())
def test_sequence_pointing_is_the_slow_loop(seed, given_boundaries):
    contributions, counted = maps(3, 2, 7, seed=seed), ragged(3, 7, seed=seed)
    boundaries = counted.sum(1) - 1 if given_boundaries else None
    made = sequence_pointing_shares(contributions, counted, boundaries)
    for pair in range(3):
        for text in range(2):
            scores = [max(0.0, score) for score, counts in zip(contributions[pair, text].tolist(), counted[pair].tolist(), strict=True) if counts]
            end = len(scores) - 1 if given_boundaries else len(scores) // 2
            own = scores[end:] if text else scores[:end]
            assert made[pair, text].item() == pytest.approx(sum(own) / sum(scores) if sum(scores) else 0.0)


def test_sequence_pointing_of_perfect_wrong_and_empty_maps_and_errors():
    counted = torch.ones(2, 6)
    right = torch.tensor([[1.0, 2, 3, -9, -9, -9], [-1, -1, -1, 0, 0, 5]]).expand(2, 2, 6)
    assert sequence_pointing_shares(right, counted).tolist() == [[1, 1]] * 2
    assert sequence_pointing_shares(right.flip(1), counted).tolist() == [[0, 0]] * 2
    assert sequence_pointing_shares(-torch.ones(2, 2, 6), counted).tolist() == [[0, 0]] * 2
    noise = sequence_pointing_shares(random_scores(torch.zeros(500, 2, 20)), torch.ones(500, 20))
    assert noise.mean().item() == pytest.approx(0.5, abs=0.01)
    for shape, mask, boundaries, words in [
        ((2, 3, 6), (2, 6), None, "G, 2, L"),
        ((2, 2, 6), (2, 5), None, "counted"),
        ((2, 2, 6), (2, 6), [6, 3], "each text"),
    ]:
        with pytest.raises(ValueError, match=words):
            sequence_pointing_shares(maps(*shape), torch.ones(mask), boundaries)


def test_a_pair_has_the_published_lengths_and_says_where_its_first_text_ends(tokenizer):
    m = 8
    texts, labels = cut_texts(tokenizer, [*sentences(4, 20), "one two"], [0, 1, 0, 1, 1], m)
    assert labels == [0, 1, 0, 1]
    assert all(len(text.split()) == m - 2 for text in texts)
    pairs = [Pair((texts[0], texts[1]), (0, 1), (0.9, 0.9)), Pair((texts[2], "one nonsense"), (0, 1), (0.9, 0.9))]
    inputs, counted, boundaries = pair_inputs(pairs, tokenizer, m)
    separators = 1 if tokenizer.cls_token == "[CLS]" else 2
    assert counted[0].sum() == 2 * m - 4 - (separators - 1)
    assert inputs["attention_mask"].sum(1).tolist() == [2 * m - 1, (m - 2) + 2 + 2 + separators]
    words = [tokenizer.convert_ids_to_tokens(ids[counts].tolist()) for ids, counts in zip(inputs["input_ids"], counted, strict=True)]
    assert words[1] == [*texts[2].split(), "one", tokenizer.unk_token]
    assert boundaries.tolist() == [m - 1 - separators, m - 2]  # a pair that is a token too long loses it where it is cut, in the first text
    assert boundaries[0] == counted[0].sum() // 2
    assert words[0][: boundaries[0]] == texts[0].split()[: boundaries[0]]
    assert words[0][boundaries[0] :] == texts[1].split()


def test_confident_texts_and_pairs(tokenizer):
    model = tiny("bert")
    texts = sentences(40, 9)
    batch = tokenizer(texts, return_tensors="pt")
    with torch.no_grad():
        model.classifier.weight *= 50
        model.classifier.bias -= model(**batch).logits.mean(0)  # so that every class is predicted
        probabilities = model(**batch).logits.float().softmax(-1)
    labels = probabilities.argmax(-1)
    labels[::5] = (labels[::5] + 1) % 3
    found = confident_texts(model, tokenizer, texts, labels.tolist(), threshold=0.4, batch_size=7)
    for label in range(3):
        slow = [(p[label].item(), text) for p, text, own in zip(probabilities, texts, labels, strict=True) if own == label == p.argmax() and p[label] > 0.4]
        assert [text for text, _ in found[label]] == [text for _, text in sorted(slow, reverse=True)]
        np.testing.assert_allclose([confidence for _, confidence in found[label]], sorted((p for p, _ in slow), reverse=True), rtol=1e-5)
    pairs = sample_pairs(found, seed=3)
    assert pairs == sample_pairs(found, seed=3) != sample_pairs(found, seed=4)
    used = {label: [] for label in found}
    for pair in pairs:
        assert pair.labels[0] != pair.labels[1]
        for text, label, confidence in zip(pair.texts, pair.labels, pair.confidences, strict=True):
            used[label].append((text, confidence))
    assert all(rows == found[label][: len(rows)] for label, rows in used.items())
    assert sum(len(rows) < len(found[label]) for label, rows in used.items()) <= 1  # a class is left over only alone
    with pytest.raises(ValueError, match="found enough for"):
        sample_pairs(found, count=100)


def test_the_game_is_its_parts_and_knows_a_model_of_words(tokenizer):
    texts = {0: [(text, 0.9) for text in sentences(9, 6)], 1: [(text, 0.8) for text in sentences(9, 3, seed=1)]}
    pairs, model = sample_pairs(texts), tiny("bert")
    bcos = bcosify(model, b=1.5)

    def cheat(targets, input_ids, **inputs):
        made = bcos.explain(input_ids=input_ids, targets=targets, **inputs)
        first = torch.arange(input_ids.shape[1]) < (input_ids == tokenizer.sep_token_id).int().argmax(1)[:, None, None]
        own = torch.where(targets[:, :, None] == targets[:, :1, None], first, ~first)
        made.contributions = own.double()
        return made

    games = play_sequence_pointing_game(
        pairs, {"bcos": bcos.explain, "cheat": cheat, "gradient": partial(input_x_gradient, model)}, tokenizer, batch_size=4, seed=2
    )
    inputs, counted, boundaries = pair_inputs(pairs, tokenizer)
    made = bcos.explain(**inputs, targets=torch.tensor([pair.labels for pair in pairs]))
    shares = sequence_pointing_shares(made.contributions, counted, boundaries).mean(1)
    wanted = {**bootstrap_interval(shares, seed=2), "n": len(pairs), "seed": 2}
    assert games["bcos"] == pytest.approx({**wanted, "max_relative_residual": made.relative_residual.max().item()}, abs=1e-6)
    assert (games["cheat"]["mean"], games["random"]["mean"]) == pytest.approx((1.0, 0.5), abs=0.15)
    assert games["gradient"]["n"] == games["random"]["n"] == len(pairs) == 9
    halves = play_sequence_pointing_game(pairs, {"bcos": bcos.explain}, tokenizer, halves=True)
    assert halves["bcos"]["mean"] == pytest.approx(sequence_pointing_shares(made.contributions, counted).mean().item(), abs=1e-6)
    assert halves["bcos"]["mean"] != pytest.approx(games["bcos"]["mean"], abs=1e-3)


# -- measures of before, now with intervals


def test_areas_of_texts_have_the_area_of_the_mean_as_their_mean(tokenizer):
    model = tiny("bert")
    tokenizer.mask_token = tokenizer.unk_token
    batches = [dict(tokenizer(sentences(3, 8, seed=seed), return_tensors="pt")) for seed in range(2)]
    scores = [maps(3, batch["input_ids"].shape[1], seed=seed) for seed, batch in enumerate(batches)]
    areas, means = (measure(model, batches, scores, tokenizer) for measure in (faithfulness_areas, faithfulness))
    drops = []
    for batch, importance in zip(batches, scores, strict=True):
        special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids)).long()
        drops.append(perturbation_drops(model, batch["input_ids"], batch["attention_mask"], importance, special, tokenizer.mask_token_id))
    for name, values in areas.items():
        curves = torch.cat([made[name] for made in drops])
        assert values.tolist() == pytest.approx([area_under_curve(curve) for curve in curves])
        assert means[name] == pytest.approx(area_under_curve(curves.mean(0)), abs=1e-6)


def test_word_valence_has_an_interval_over_texts():
    texts = [[(0.1, 1.0), (0.5, 2.0)], [], [(0.3, -1.0)], [(-0.2, -2.0), (0.4, 0.5), (0.0, 0.1)]]
    pairs = [pair for rows in texts for pair in rows]
    made, full = word_valence_interval(texts, confidence=0.9, n_resamples=40, seed=4), [rows for rows in texts if rows]
    generator = np.random.default_rng(4)
    draws = [list(zip(*(pair for i in generator.integers(3, size=3) for pair in full[i]), strict=True)) for _ in range(40)]
    slow = [spearmanr(*draw).statistic if len(set(draw[0])) > 1 else 0 for draw in draws]  # equal numbers have no order
    assert made["rho"] == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert (made["low"], made["high"]) == pytest.approx(tuple(np.quantile(slow, [0.05, 0.95])))
    assert (made["n"], made["seed"]) == (3, 4)
    assert -1 <= made["random"] <= 1


# -- human rationales


@quick
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12).filter(lambda rows: any(mark for _, mark in rows)))
def test_precision_recall_area_is_scikit_learn_s(rows):
    scores, marked = (torch.tensor(column) for column in zip(*rows, strict=True))
    precision, recall, _ = reference.precision_recall_curve(marked.numpy(), scores.numpy())
    assert precision_recall_area(scores.double(), marked) == pytest.approx(reference.auc(recall, precision))


@quick
@given(st.integers(0, 1000))
def test_rationale_agreement_is_the_slow_loop(seed):
    scores, counted = maps(4, 12, seed=seed), ragged(4, 12, seed=seed)
    marked = torch.rand(4, 12, generator=torch.Generator().manual_seed(seed)) < 0.4
    marked[:, 0] = True
    made = rationale_agreement(scores, marked, counted)
    fraction = np.mean([(marked[row] & counted[row]).sum() / counted[row].sum() for row in range(4)])
    for row in range(4):
        inside, own = counted[row].numpy(), scores[row].numpy()
        count = max(1, int(np.float32(inside.sum()) * np.float32(fraction)))
        threshold = np.sort(own[inside])[-count]
        chosen, human = own[inside] >= threshold, marked[row].numpy()[inside]
        assert made["token_f1"][row].item() == pytest.approx(reference.f1_score(human, chosen))
        assert made["iou_f1"][row].item() == pytest.approx(slow_span_f1(chosen, human))
        precision, recall, _ = reference.precision_recall_curve(human, own[inside])
        assert made["auprc"][row].item() == pytest.approx(reference.auc(recall, precision))


def slow_span_f1(chosen, human):
    """ERASER: a predicted span counts as right if it shares half of its union with a human one."""

    def spans(tokens):
        found, current = [], set()
        for index, token in enumerate([*tokens, False]):
            if token:
                current.add(index)
            elif current:
                found.append(current)
                current = set()
        return found

    ours, theirs = spans(chosen), spans(human)
    right = sum(max(len(one & other) / len(one | other) for other in theirs) >= 0.5 for one in ours)
    precision, recall = right / len(ours), right / len(theirs)
    return 0 if right == 0 else 2 * precision * recall / (precision + recall)


def test_rationales_perfect_ones_spans_of_characters_and_errors():
    marked = torch.tensor([[0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]).bool()
    counted = torch.ones_like(marked)
    assert all((values == 1).all() for values in rationale_agreement(marked.double(), marked, counted).values())
    assert span_f1([True, False, False], [False, False, True]) == 0
    offsets = torch.tensor([[[0, 0], [0, 4], [5, 9], [9, 10], [0, 0]]])
    assert marked_tokens([[(5, 8)]], offsets).tolist() == [[False, False, True, False, False]]
    assert marked_tokens([[(3, 6), (9, 10)]], offsets).tolist() == [[False, True, True, True, False]]
    text, passages = "a dull\nfilm .\ndull", ["dull film", "dull", "", "film . dull", "a film"]
    assert [text[start:end] for start, end in quoted_spans(text, passages)] == ["dull\nfilm", "dull", "film .\ndull"]
    with pytest.raises(ValueError, match="leave those out"):
        rationale_agreement(maps(2, 6), marked & torch.tensor([[True], [False]]), counted)
    with pytest.raises(ValueError, match="three tensors"):
        rationale_agreement(maps(2, 5), marked, counted)


# -- evidence


@quick
@given(st.integers(0, 1000))
def test_reciprocal_ranks_are_the_slow_loop_and_their_chance_the_mean_over_orders(seed):
    scores, counted = maps(2, 6, seed=seed).round(decimals=0), ragged(2, 6, seed=seed)
    evidence = torch.zeros(2, 6).bool()
    evidence[:, 1] = evidence[0, 0] = True
    made, chance = reciprocal_ranks(scores, evidence, counted), expected_reciprocal_ranks(counted, evidence)
    for row in range(2):
        places = [index for index in range(6) if counted[row, index]]
        order = sorted(places, key=lambda index: -scores[row, index].item())
        slow = max(1 / (rank + 1) for rank, index in enumerate(order) if evidence[row, index])
        wanted = chance[row].item() if len({scores[row, index].item() for index in places}) == 1 else slow
        assert made[row].item() == pytest.approx(wanted)
        sets = list(combinations(range(1, len(places) + 1), int((evidence & counted)[row].sum())))
        assert chance[row].item() == pytest.approx(np.mean([1 / min(ranks) for ranks in sets]))
    with pytest.raises(ValueError, match="leave those out"):
        reciprocal_ranks(scores, evidence & torch.tensor([[True], [False]]), counted)


# -- sanity checks


@quick
@given(st.integers(0, 1000), st.integers(2, 4))
def test_rank_agreement_is_scipy_s_over_all_pairs(seed, count):
    explanations, counted = [maps(3, 4, 3, seed=seed + index).round(decimals=1) for index in range(count)], ragged(3, 12, seed=seed).view(3, 4, 3)
    made = rank_agreement(explanations, counted)
    for row in range(3):
        slow = [spearmanr(one[row][counted[row]], other[row][counted[row]]).statistic for one, other in combinations(explanations, 2) if counted[row].sum() > 2]
        if slow and np.isfinite(slow).all():
            assert made[row].item() == pytest.approx(np.mean(slow))


def test_rank_agreement_of_equal_opposite_constant_and_random_explanations():
    one = maps(5, 30)
    torch.testing.assert_close(rank_agreement([one, one.exp()]), torch.ones(5).double())
    torch.testing.assert_close(rank_agreement([one, -one]), -torch.ones(5).double())
    assert spearman([1, 1, 1], [1, 2, 3]) == 0
    assert abs(rank_agreement([maps(50, 30), maps(50, 30, seed=1)]).mean()) < 0.1
    for explanations in ([one], [one, maps(5, 29)]):
        with pytest.raises(ValueError, match="two or more"):
            rank_agreement(explanations)


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_randomisation_leaves_the_model_and_is_felt(family):
    model, batch = bcosify(tiny(family), b=1.5), batch_of(family)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.random.get_rng_state()
    layer = "bert.encoder.layer.1" if family == "bert" else "resnet.encoder.stages.1"
    made = randomisation_sensitivity(model, model.explain, batch, ["classifier", layer], seed=1)
    alone = randomisation_sensitivity(model, model.explain, batch, ["classifier", layer], cascading=False, seed=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert made["classifier"] == alone["classifier"]
    assert made[layer] != alone[layer]
    assert made.keys() == {"classifier", layer, "random"}
    assert all(
        -1 <= result["low"] <= result["mean"] <= result["high"] and result["mean"] < 0.999 and (result["n"], result["seed"]) == (3, 1)
        for result in made.values()
    )
    head, seen = next(model.classifier.parameters()), []
    with torch.no_grad():  # a new head as training with the same seed makes it
        head.copy_(torch.randn(head.shape, generator=torch.Generator().manual_seed(1)))

    def looking(**inputs):
        seen.append(head.detach().clone().flatten())
        return model.explain(**inputs)

    randomisation_sensitivity(model, looking, batch, ["classifier"], seed=1)
    assert abs(torch.corrcoef(torch.stack(seen))[0, 1]) < 0.5
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole = model.explain(**batch)
    blind = lambda **inputs: whole  # an explanation that never looks at the model
    assert randomisation_sensitivity(model, blind, batch, ["classifier"])["classifier"]["mean"] == pytest.approx(1)
    with pytest.raises(ValueError, match="names of modules"):
        randomisation_sensitivity(model, model.explain, batch, ["head"])
    with pytest.raises(RuntimeError), as_it_was(model):
        next(model.classifier.parameters()).data.zero_()
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("family", "head"), [("bert", "mlm"), ("gpt2", "causal"), ("llama", "causal")])
def test_the_evidence_rank_of_a_language_model_is_that_of_each_pair_alone(family, head):
    model, gap, special = bcosify(tiny(family, head)), " w4 w20", {"mask_token": "w4"}
    gap, special = (gap, special) if head == "mlm" else ("", {})
    given = [("w7 w8 w9 w10", "w30", [(0, 2)]), ("w11 w12", "w31", [(4, 7)]), ("w13 w14 w15", "w32", [(0, 3), (8, 11)])]
    pairs = [ContrastivePair(text + gap, word, "w33", evidence) for text, word, evidence in given]

    def knows(input_ids, **rest):  # gives all to the tokens that decide, wherever they are
        return SimpleNamespace(contributions=torch.isin(input_ids, torch.tensor([7, 12, 13, 15])).double()[:, None])

    made = play_evidence_rank(pairs, {"bcos": model.explain, "knows": knows}, tokenizer_of(90, **special), batch_size=2, seed=3)
    ranks, chances = [], []
    for pair, (text, word, evidence) in zip(pairs, given, strict=True):
        ids = [int(token[1:]) for token in pair.text.split()]
        place = {"position": ids.index(4)} if gap else {}
        scores = model.explain(input_ids=torch.tensor([ids]), targets=int(word[1:]), contrast=33, **place).contributions[0, 0].tolist()
        order = [ids[index] for index in sorted(range(len(ids)), key=lambda index: -scores[index]) if ids[index] != 4]
        deciding = [int(text[start + 1 : end]) for start, end in evidence]
        ranks.append(1 / (1 + min(order.index(token) for token in deciding)))
        orders = list(permutations(order))
        chances.append(np.mean([1 / (1 + min(one.index(token) for token in deciding)) for one in orders]))
    assert made["bcos"]["mean"] == pytest.approx(np.mean(ranks)) and made["knows"]["mean"] == 1
    assert made["random"]["mean"] == pytest.approx(np.mean(chances)) and (made["bcos"]["n"], made["bcos"]["seed"]) == (3, 3)


@pytest.mark.parametrize("split", [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Metaspace(), pre_tokenizers.Whitespace()])
def test_the_token_of_a_word_is_the_one_that_stands_in_its_place(split):
    """Of tokenizers whose tokens begin with a space (GPT-2), with a mark for it (Llama), and without (BERT)."""
    made = Tokenizer(models.BPE(unk_token="?"))
    made.pre_tokenizer = split
    made.train_from_iterator(["The keys are here", "The key is here", "are is"] * 9, trainers.BpeTrainer(vocab_size=90, special_tokens=["?", "[MASK]"]))
    plain, masked = (transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="?", **mask) for mask in ({}, {"mask_token": "[MASK]"}))
    for word in ("are", "is"):
        after, between = token_of(plain, "The keys", word), token_of(masked, "The keys [MASK] here", word)
        assert after == plain(f"The keys {word}")["input_ids"][-1] and after == between
        assert plain.convert_ids_to_tokens(after).strip("Ġ▁") == word


def test_what_makes_no_contrastive_pair_is_said():
    masked, pair = tokenizer_of(90, mask_token="w4"), ContrastivePair("w7 w4", "w30", "w30", [(0, 2)])
    with pytest.raises(ValueError, match="share theirs"):
        play_evidence_rank([pair], {}, masked)
    with pytest.raises(ValueError, match="in 1 of 2"):
        play_evidence_rank([replace(pair, foil="w31"), ContrastivePair("w7", "w30", "w31", [(0, 2)])], {}, masked)
    with pytest.raises(ValueError, match="found none in 1"):
        zero = SimpleNamespace(contributions=torch.zeros(1, 1, 1))
        play_evidence_rank([ContrastivePair("w7", "w30", "w31", [])], {"zero": lambda **inputs: zero}, tokenizer_of(90))


# -- as metrics


def test_metrics_load_by_path_and_report_chance_seed_and_number():
    rows = [maps(2, length, seed=length).tolist() for length in (5, 7, 6)]
    made = metric("sequence_pointing_game", predictions=rows, references=[2, 4, 3], seed=3)
    shares = [
        sequence_pointing_shares(torch.tensor([row]), torch.ones(1, len(row[0])), torch.tensor([end])).mean() for row, end in zip(rows, (2, 4, 3), strict=True)
    ]
    assert made == pytest.approx({**measured("sequence_pointing_game", torch.stack(shares), torch.zeros(3), 3), "sequence_pointing_game_random": 0.5}, abs=0.3)
    assert made["sequence_pointing_game"] == pytest.approx(torch.stack(shares).mean().item())
    scores, marks = [row[0] for row in rows], [[1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    alone = [(torch.tensor([row]), torch.tensor([own]), torch.ones(1, len(own))) for row, own in zip(scores, marks, strict=True)]
    single = [rationale_agreement(*tensors, fraction=0.4) for tensors in alone]
    made = metric("rationale_agreement", predictions=scores, references=marks, fraction=0.4)
    for name in ("token_f1", "iou_f1", "auprc"):
        assert made[name] == pytest.approx(np.mean([one[name].item() for one in single]))
        assert {f"{name}_low", f"{name}_high", f"{name}_random", "n", "seed"} <= made.keys()
    made = metric("evidence_rank", predictions=scores, references=marks)
    ranks = [reciprocal_ranks(*tensors).item() for tensors in alone]
    assert (made["evidence_rank"], made["n"], made["seed"]) == (pytest.approx(np.mean(ranks)), 3, 0)
    chances = [expected_reciprocal_ranks(counted.bool(), evidence.bool()).item() for _, evidence, counted in alone]
    assert made["evidence_rank_random"] == pytest.approx(np.mean(chances))
    rated = [[(score, round(score, 1)) for score in row] for row in scores]
    wanted = word_valence_interval(rated, seed=5)
    made = metric("word_valence", predictions=scores, references=[[value for _, value in row] for row in rated], seed=5)
    assert made == {"n": 3, "seed": 5, "word_valence": wanted["rho"], **{f"word_valence_{key}": wanted[key] for key in ("low", "high", "random")}}
    made = metric("cost", predictions=[3.0, 8.0], references=[1.0, 2.0])
    assert made == {"cost_in_forward_passes": 3.5, "cost_in_forward_passes_low": 3.0, "cost_in_forward_passes_high": 4.0, "n": 2, "seed": 0}
    made = metric("rank_agreement", predictions=rows)
    rhos = [spearmanr(*row).statistic for row in rows]
    assert made["rank_agreement"] == pytest.approx(np.mean(rhos))
    before, after = zip(*rows, strict=True)
    made = metric("randomisation", predictions=before, references=after, seed=1)
    assert (made["randomisation"], made["n"], made["seed"]) == (pytest.approx(np.mean(rhos)), 3, 1)
    assert -1 <= made["randomisation_random"] <= 1 and made["randomisation_low"] <= made["randomisation"] <= made["randomisation_high"]
    with pytest.raises(ValueError, match="of one shape"):
        metric("randomisation", predictions=before, references=after[::-1])


# -- cost


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
@pytest.mark.parametrize("size", [2**10, 2**20])
def test_peak_memory_is_what_is_alive_at_once(size, device):
    def run():
        one = torch.ones(size, device=device)
        two = one.sin()
        del one
        three = two.cos()
        del two
        return three.sin()

    assert peak_tensor_memory(device, run) == 2 * 4 * size
