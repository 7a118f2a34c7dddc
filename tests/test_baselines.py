"""Post-hoc explainers against their formulas, written slowly."""

import pytest
import torch
from conftest import batch_of, tiny
from torch.nn import functional as F

from bcos_hf.baselines import grad_cam, input_x_gradient, random_explanation


@pytest.mark.parametrize("targets", [None, 1, [[0, 2]] * 3])
def test_input_x_gradient(targets):
    for family in ("resnet", "vit", "bert"):
        model, batch = tiny(family), batch_of(family)
        made = input_x_gradient(model, targets=targets, **batch)
        if family == "bert":
            x = model.bert.embeddings(batch["input_ids"]).detach().requires_grad_()
            hook = model.bert.embeddings.register_forward_hook(lambda module, args, output, x=x: x)
        else:
            x = batch["pixel_values"].clone().requires_grad_()
            hook = model.register_forward_pre_hook(lambda module, args, kwargs, x=x: (args, {"pixel_values": x}), with_kwargs=True)
        logits = model(**batch).logits
        hook.remove()
        for row, classes in enumerate(made.targets.tolist()):
            for index, target in enumerate(classes):
                (gradient,) = torch.autograd.grad(logits[row, target], x, retain_graph=True)
                slow = (gradient * x)[row].sum(-1 if family == "bert" else 0)
                torch.testing.assert_close(made.contributions[row, index], slow.detach())


def test_grad_cam():
    model, x = tiny("resnet"), batch_of("resnet")["pixel_values"]
    made = grad_cam(model, x, targets=[[0, 1]] * 3)
    hidden = model.resnet(x).last_hidden_state.detach().requires_grad_()
    logits = model.classifier(hidden.mean((2, 3)))
    torch.testing.assert_close(made.logits, logits.detach())
    for row in range(3):
        for target in range(2):
            (gradient,) = torch.autograd.grad(logits[row, target], hidden, retain_graph=True)
            alpha = gradient[row].mean((1, 2))
            cam = sum(a * channel for a, channel in zip(alpha, hidden[row], strict=True)).clamp_min(0)
            slow = F.interpolate(cam[None, None], size=(16, 16), mode="bilinear", align_corners=False)[0, 0]
            torch.testing.assert_close(made.contributions[row, target], slow.detach())
    with pytest.raises(ValueError, match="a CNN"):
        grad_cam(tiny("vit"), x)


def test_random_explanation_is_noise_that_a_generator_renews():
    model, x = tiny("resnet"), batch_of("resnet")["pixel_values"]
    one, same = (random_explanation(model, pixel_values=x, targets=0, seed=3) for _ in range(2))
    torch.testing.assert_close(one.contributions, same.contributions)
    torch.testing.assert_close(one.contributions.flatten(2).sum(-1) + one.residual, one.explained_logits)
    assert one.contributions.abs().max() <= 1 and abs(one.contributions.mean()) < 0.1
    generator = torch.Generator().manual_seed(3)
    first, second = (random_explanation(model, pixel_values=x, targets=0, seed=generator) for _ in range(2))
    torch.testing.assert_close(first.contributions, one.contributions)
    assert not torch.isclose(first.contributions, second.contributions).any()
