"""No thread sees another's explanation: any mixture of predictions and explanations gives, bit for bit, what one thread gives."""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from conftest import EMBEDDERS, IMAGE, batch_of, tiny

from bcos_hf import bcosify
from bcos_hf.baselines import BASELINES
from bcos_hf.models.bcos_sharing import sharing


THREADS, CALLS = 8, 3


@pytest.fixture(autouse=True)
def _switching():
    """Threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def _in_mode(model, batch):
    with model.explanation_mode():
        return model(**batch).logits


def kinds_of(model, batches):
    """Every kind of call on every batch, without arguments, each giving tensors."""
    targets = [[0, 1], [2, 0], [1, 2]]
    for batch in batches:
        yield lambda batch=batch: [model(**batch).logits.detach()]
        yield lambda batch=batch: [_in_mode(model, batch).detach()]
        yield lambda batch=batch: _parts(model.explain(**batch))
        yield lambda batch=batch: _parts(model.explain(**batch, targets=targets, contrast="mean", return_weights=False))


def _parts(made):
    return [part for part in (made.logits, made.contributions, made.constant, made.weights) if part is not None]


def assert_threads_give_what_one_gives(calls):
    expected = [call() for call in calls]
    order = list(itertools.islice(itertools.cycle(range(len(calls))), THREADS * CALLS))
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda number: calls[number](), order))
    for number, parts in zip(order, found, strict=True):
        assert all(torch.equal(part, other) for part, other in zip(parts, expected[number], strict=True))


def inputs_of(family):
    first = batch_of(family)
    if family in IMAGE:
        return [first, {"pixel_values": -2 * first["pixel_values"]}]
    return [first, {name: value.flip(0) for name, value in first.items()}]


def test_threads(family):
    model = bcosify(tiny(family), keep_biases=True)
    assert_threads_give_what_one_gives(list(kinds_of(model, inputs_of(family))))


@pytest.mark.parametrize("kind", ["clip", "siglip", "clip_resnet", "dual_encoder"])
def test_threads_with_prompts(kind):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **EMBEDDERS[kind])
    model = bcosify(transformers.AutoModel.from_config(config).eval())
    pixels, ids = torch.randn(3, 3, 16, 16), torch.randint(3, 80, (2, 6))
    calls = [
        lambda: [model(pixel_values=pixels).image_embeds.detach()],
        lambda: _parts(model.explain(pixels, input_ids=ids, targets=1)),
    ]
    calls += [
        lambda: [model(pixel_values=pixels, input_ids=ids).logits_per_image.detach()],
        lambda: _parts(model.explain(-pixels, input_ids=ids.flip(0))),
    ]
    assert_threads_give_what_one_gives(calls)


@pytest.mark.parametrize("method", ["attention_rollout", "input_x_gradient", "integrated_gradients"])
def test_threads_with_other_explainers(method):
    model, batch, options = tiny("bert"), batch_of("bert"), {"steps": 4} if method == "integrated_gradients" else {}
    calls = [
        lambda: [model(**batch).logits.detach()],
        lambda: [BASELINES[method](model, **batch, **options).contributions],
    ]
    assert_threads_give_what_one_gives(calls)


def test_training_goes_on_while_others_explain(family):
    """A thread that explains changes neither what a training step computes nor that it computes gradients."""
    model, batch = bcosify(tiny(family)), batch_of(family)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    labels, names = torch.tensor([0, 1, 2]), [name for name, _ in model.named_parameters()]
    model.train()

    def gradients():
        loss = model(**batch, labels=labels).loss
        return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)

    expected, explained = gradients(), _parts(model.explain(**batch))
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(model.explain, **batch) for _ in range(2)]
        for name, found, right in zip(names, gradients(), expected, strict=True):
            assert (found is None and right is None) or torch.equal(found, right), name
        statistics = any(
            name.endswith("running_var") for name, _ in model.named_buffers()
        )  # those go on with each step
        for other in others:
            assert statistics or all(
                torch.equal(part, right) for part, right in zip(_parts(other.result()), explained, strict=True)
            )
    assert all(module.training for module in model.modules())


def test_a_copy_shares_its_tensors_and_nothing_else(family):
    model = bcosify(tiny(family)).train()
    copy = sharing(model)
    assert [name for name, _ in copy.named_modules()] == [name for name, _ in model.named_modules()]
    for (name, own), (_, other) in zip(
        model.state_dict(keep_vars=True).items(), copy.state_dict(keep_vars=True).items(), strict=True
    ):
        assert own.data_ptr() == other.data_ptr() and not other.requires_grad, name
    assert not any(module.training for module in copy.modules()) and all(module.training for module in model.modules())
    assert not set(copy.modules()) & set(model.modules())


@pytest.mark.parametrize("family", ["vit", "bert"])
def test_a_compiled_forward_is_explained_uncompiled(family):
    model, batch = bcosify(tiny(family)), batch_of(family)
    expected = model.explain(**batch)
    model.forward = torch.compile(model.forward, backend="eager")
    model.compile(backend="eager")
    found = model.explain(**batch)
    assert torch.equal(found.contributions, expected.contributions)
