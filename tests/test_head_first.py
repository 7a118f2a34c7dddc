"""The head first: what goes into it is found in every family, it alone learns, and a new head starts from a regression."""

import pytest
import torch
import transformers
from conftest import IMAGE, TEXT, tiny
from torch.nn import functional as F

from bcos_hf import bcosify
from bcos_hf.models.bcos_layers import BcosLinear
from bcos_hf.training import head_inputs, head_of, train_head_


CLASSIFIERS = [family for family in (*TEXT, *IMAGE) if family not in ("clip", "siglip")]
PLAIN = dict(b=1.5, weight_norm="none")


def labelled(family, count=60, seed=0):
    """Batches of 20 rows with one of three labels each; texts are of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for length in range(6, 6 + count // 20):
        batch = {"labels": torch.randint(0, 3, (20,), generator=generator)}
        if family in IMAGE:
            batch["pixel_values"] = torch.randn(20, 3, 16, 16, generator=generator, dtype=torch.float64)
        else:
            ids = torch.randint(5, 90, (20, length), generator=generator)
            mask = torch.ones_like(ids)
            mask[::2, -2:] = 0
            batch |= {"input_ids": ids.masked_fill(mask == 0, 1 if family == "roberta" else 0), "attention_mask": mask}
        batches.append(batch)
    return batches


@pytest.mark.parametrize("family", CLASSIFIERS)
@pytest.mark.parametrize("kind", ["standard", "bcos"])
def test_the_head_makes_the_models_logits_of_what_is_kept_of_its_input(family, kind):
    model = tiny(family)
    model = bcosify(model, **PLAIN) if kind == "bcos" else model
    batches = labelled(family, 40)
    _, head = head_of(model)
    x, labels = head_inputs(model, head, batches)
    made = head(x) if x.dim() == 2 else head(x).mean(1)
    with torch.no_grad():
        logits = torch.cat([model(**{name: value for name, value in batch.items() if name != "labels"}).logits for batch in batches])
    torch.testing.assert_close(made.detach(), logits)
    assert torch.equal(labels, torch.cat([batch["labels"] for batch in batches]))


@pytest.mark.parametrize("family", ["bert", "resnet", "llama"])
def test_the_head_alone_learns_and_does_so_the_same_each_time(family):
    batches, made = labelled(family), []
    for _ in range(2):
        model = bcosify(tiny(family), **PLAIN)
        before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
        result = train_head_(model, batches, steps=30, seed=3)
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed <= {f"{head_of(model)[0]}.weight"} and result.after <= result.before and (result.rows, result.held_out) == (48, 12)
        assert not model.training and all(p.grad is None and p.requires_grad for p in model.parameters()) and torch.equal(state, torch.get_rng_state())
        made.append(model.state_dict())
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())


class Passing(torch.nn.Module):
    """Gives its input to a head, as a model does whose features are given."""

    device = torch.device("cpu")
    config = transformers.BertConfig(num_labels=3)

    def __init__(self, head):
        super().__init__()
        self.classifier = head

    def forward(self, x):
        logits = self.classifier(x)
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=logits)


Passing.__name__ = "BertForSequenceClassification"


def passing(kind, classes=3, size=12):
    torch.manual_seed(0)
    head = torch.nn.Linear(size, classes) if kind == "standard" else BcosLinear(size, classes, b=float(kind), weight_norm="none")
    torch.nn.init.normal_(head.weight, 0, 0.02)
    return Passing(head.double())


def separable(count=400, classes=3, size=12):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, classes, (count,), generator=generator)
    x = torch.randn(count, size, generator=generator, dtype=torch.float64) + 3 * F.one_hot(labels, size)
    return [{"x": x, "labels": labels}]


@pytest.mark.parametrize("kind", ["standard", "1", "1.5", "2"])
def test_a_new_head_starts_near_what_can_be_known(kind):
    """Without a step; random rows say next to nothing."""
    model, (batch,) = passing(kind), separable()
    made = train_head_(model, [batch], "zero", steps=0, new={"classifier.weight"})
    logits = model(batch["x"]).logits
    assert made.after < 0.6 * made.before
    assert (logits.argmax(1) == batch["labels"]).double().mean() > 0.95
    assert logits.gather(1, batch["labels"][:, None]).mean() > 0.5


def test_the_linear_start_is_the_regression_of_centered_labels():
    model, (batch,) = passing("1"), separable()
    train_head_(model, [batch], steps=0, new={"classifier.weight"})
    held = torch.arange(len(batch["x"])) % 5 == 4
    target = F.one_hot(batch["labels"], 3).double()
    slow = torch.linalg.lstsq(batch["x"][~held], (target - target.mean(0))[~held]).solution.T
    assert F.cosine_similarity(model.classifier.weight.flatten(), slow.flatten(), dim=0) > 0.999


def test_rows_without_a_label_do_not_count():
    (batch,) = separable()
    left_out = {"x": batch["x"].clone(), "labels": batch["labels"].clone()}
    left_out["labels"][::7], left_out["x"][::7] = -100, 1e3
    kept = [{name: value[batch_kept] for name, value in batch.items()} for batch_kept in [left_out["labels"] != -100]]
    models = [passing("1.5"), passing("1.5")]
    for model, batches in zip(models, ([left_out], kept), strict=True):
        train_head_(model, batches, steps=20, new={"classifier.weight"})
    assert torch.equal(models[0].classifier.weight, models[1].classifier.weight)


def test_what_cannot_be_says_so():
    with pytest.raises(ValueError, match="at least 10 labelled training rows, got 4"):
        train_head_(passing("2"), [{name: value[:4] for name, value in batch.items()} for batch in separable()])
    with pytest.raises(ValueError, match="expected a classifier of a family that has a B-cos twin, got a BertModel"):
        train_head_(tiny("bert").base_model, labelled("bert"))
    with pytest.raises(ValueError, match="labels: expected classes 0 to 2"):
        train_head_(passing("2"), [{**batch, "labels": batch["labels"] + 1} for batch in separable()])
