"""Post-hoc explainers against their formulas, written slowly."""

import sys

import pytest
import torch
import transformers
from captum import attr
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr._core.lime import get_exp_kernel_similarity_function
from conftest import DECODERS, EMBEDDERS, TEXT, batch_of, tiny
from torch.nn import functional as F

from bcos_hf import bcosify
from bcos_hf.baselines import BASELINES, attention_rollout, captum_explanation, grad_cam, input_x_gradient, random_explanation
from bcos_hf.baselines.captum_methods import METHODS
from bcos_hf.metrics import ZeroShotClassifier
from bcos_hf.metrics.pixel_perturbation import blurred
from bcos_hf.models.modeling_bcos_image_text import unit


KINDS = ["text", "next token", "picture", "prompt", "transformer"]
TEXTS = ("text", "next token")
TARGETS = torch.tensor([[0, 2], [1, 0], [2, 1]])


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


def prompted(family):
    """A tiny CLIP and four embeddings of prompts, as a classifier whose logits are cosines."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **EMBEDDERS[family])).double()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return ZeroShotClassifier(model, F.normalize(torch.randn(4, 20, dtype=torch.float64), dim=-1))


def case(kind):
    """A model, its inputs, and for each input alone: what is explained [1, ...], and its logits as a function of that, written without the library."""
    if kind == "text":
        model, batch = tiny("bert"), batch_of("bert")
        rows, functions = [], []
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            length = int(mask.sum())
            rows.append(model.bert.embeddings(ids[None, :length]).detach())
            functions.append(lambda x: model.classifier(model.bert.pooler(model.bert.encoder(x).last_hidden_state)))
        return model, batch, rows, functions
    if kind == "next token":
        model, batch = tiny("gpt2", "causal"), batch_of("gpt2")
        words, positions = model.transformer.wte.weight.detach(), model.transformer.wpe.weight.detach()
        lengths = batch["attention_mask"].sum(1).tolist()
        rows = [words[ids[None, :length]] + positions[:length] for ids, length in zip(batch["input_ids"], lengths, strict=True)]
        return model, batch, rows, [lambda x: model(inputs_embeds=x - positions[: x.shape[1]]).logits[:, -1]] * 3
    model = prompted("dual_encoder") if kind == "prompt" else tiny("resnet" if kind == "picture" else "vit")
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def cosines(x):
        embeds = model.model.get_image_features(x).pooler_output
        return embeds @ model.class_embeds.T / embeds.norm(dim=-1, keepdim=True)

    return model, {"pixel_values": x}, list(x.split(1)), [cosines if kind == "prompt" else lambda x: model(x).logits] * 3


class Function(torch.nn.Module):
    """captum wants modules, whose ReLUs it can find."""

    def __init__(self, model, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x):
        return self.function(x)


def parts_of(x, cell=2):
    """Number of each token or cell at every number of x, and how many numbers a channel has of it."""
    if x.dim() == 3:
        return torch.arange(x.shape[1])[None, :, None].expand_as(x), 1
    rows, columns = (torch.arange(side) // cell for side in x.shape[2:])
    return (rows[:, None] * (x.shape[3] // cell) + columns).expand_as(x), cell * cell


def lime(function, x, target):
    parts, _ = parts_of(x)
    count = int(parts.max()) + 1

    def switched(on):
        return function(x * (on[:, :, None] if x.dim() == 3 else on.view(-1, 8, 8).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]))

    explainer = attr.Lime(switched, SkLearnRidge(alpha=1.0), get_exp_kernel_similarity_function("cosine", 0.25))
    return explainer.attribute(x.new_ones(1, count), target=target, n_samples=30, perturbations_per_eval=30)[0].to(x.dtype)[parts]


def occlusion(function, x, target):
    window, stride = ((1, x.shape[2]), (1, x.shape[2])) if x.dim() == 3 else ((3, 4, 4), (3, 2, 2))
    return attr.Occlusion(function).attribute(x, window, stride, target=target).to(x.dtype)


# captum's own calls, for one input alone; occlusion and KernelSHAP on the numbers themselves, LIME, whose kernel sees them, on switches
DIRECT = {
    "saliency": lambda f, x, target: attr.Saliency(f).attribute(x, target=target),
    "integrated_gradients": lambda f, x, target: attr.IntegratedGradients(f).attribute(x, target=target, n_steps=7),
    "smooth_grad": lambda f, x, target: attr.NoiseTunnel(attr.Saliency(f)).attribute(
        x, nt_samples=30, stdevs=0.2 * float(x.detach().max() - x.detach().min()), target=target
    ),
    "deep_lift": lambda f, x, target: attr.DeepLift(f).attribute(x, target=target),
    "guided_backprop": lambda f, x, target: attr.GuidedBackprop(f).attribute(x, target=target),
    "occlusion": occlusion,
    "lime": lime,
    "kernel_shap": lambda f, x, target: attr.KernelShap(f).attribute(x, target=target, n_samples=30, feature_mask=parts_of(x)[0]).to(x.dtype),
}
OPTIONS = dict(steps=7, samples=30, noise=0.2, seed=5, cell=2)
REFUSED = {(kind, method) for kind in (*TEXTS, "transformer") for method in ("deep_lift", "guided_backprop")} | {("prompt", "deep_lift")}


@pytest.mark.filterwarnings("ignore:Setting:UserWarning", "ignore:Input Tensor:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_captum_s_own_call_for_each_input_alone(method, kind):
    model, batch, rows, functions = case(kind)
    options = OPTIONS | ({"window": 2} if method == "occlusion" and kind not in TEXTS else {})
    if (kind, method) in REFUSED:
        with pytest.raises(ValueError, match=method):
            captum_explanation(method, model, TARGETS, **batch, **options)
        return
    state = torch.random.get_rng_state()
    made = BASELINES[method](model, targets=TARGETS, **batch, **options)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in model.modules())
    torch.testing.assert_close(made.contributions.flatten(2).sum(-1) + made.residual, made.explained_logits)
    for row, (x, function) in enumerate(zip(rows, functions, strict=True)):
        f = Function(model, function)
        torch.testing.assert_close(made.logits[row], f(x)[0].detach())
        for k, target in enumerate(TARGETS[row].tolist()):
            torch.manual_seed(5)
            slow = DIRECT[method](f, x.clone().requires_grad_(), target).detach()
            if METHODS[method].switches:
                slow = slow[:, :, 0] if kind in TEXTS else slow[:, 0] / parts_of(x)[1]
            else:
                slow = slow.sum(-1 if kind in TEXTS else 1)
            ours = made.contributions[row, k]
            length = slow.shape[-1]
            torch.testing.assert_close(ours[..., :length], slow[0], rtol=1e-5, atol=1e-6)  # captum's switches are float32
            assert not ours[..., length:].any()


@pytest.mark.parametrize("kind", ["text", "picture", "prompt"])
def test_baselines_contrast_and_completeness(kind):
    """Integrated gradients and KernelSHAP add up to what the baseline leaves out, which tells which baseline it was."""
    model, batch, rows, functions = case(kind)
    if kind == "text":
        token = lambda x, number: model.bert.embeddings(torch.full(x.shape[:2], number)).detach()
        absent = {"zero": torch.zeros_like, "pad": lambda x: token(x, 0), 7: lambda x: token(x, 7), 0.5: lambda x: torch.full_like(x, 0.5)}
    else:
        absent = {"zero": torch.zeros_like, "blur": blurred, 0.5: lambda x: torch.full_like(x, 0.5)}
    for baseline, make in absent.items():
        options = dict(OPTIONS, steps=60, samples=40, cell=5, baseline=baseline)
        whole, _, contrasted = (
            captum_explanation("kernel_shap", model, targets, contrast, **batch, **options) for targets, contrast in ((1, None), (2, None), (1, 2))
        )
        gradients = captum_explanation("integrated_gradients", model, 1, 2, **batch, **options)
        for row, (x, function) in enumerate(zip(rows, functions, strict=True)):
            with torch.no_grad():
                difference = (function(x) - function(make(x)))[0]
            found = [made.contributions[row].sum() for made in (whole, contrasted, gradients)]
            torch.testing.assert_close(found[0], difference[1], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found[1], difference[1] - difference[2], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found[2], difference[1] - difference[2], atol=0.02, rtol=0.02)
    relative = captum_explanation("occlusion", model, 0, "mean", **batch)
    assert relative.relative
    with pytest.raises(ValueError, match="baseline: expected"):
        captum_explanation("occlusion", model, 0, **batch, baseline="grey")


@pytest.mark.parametrize("method", [name for name, how in METHODS.items() if how.switches])
def test_targets_share_the_forward_passes(method):
    model, batch = tiny("bert"), batch_of("bert")
    passes = []
    model.classifier.register_forward_hook(lambda *args: passes.append(1))
    counts = []
    for targets in (0, [[0, 1, 2]] * 3):
        captum_explanation(method, model, targets, **batch, samples=20)
        counts.append(len(passes))
        passes.clear()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("family", ["bert", "resnet"])
def test_a_method_costs_its_own_passes_and_one_that_poses_the_question(family):
    model, passes = tiny(family), []
    model.classifier.register_forward_hook(lambda *args: passes.append(torch.is_grad_enabled()))
    for name, wanted in {"random": [False], "input_x_gradient": [True], "saliency": [False, True]}.items():
        BASELINES[name](model, targets=0, **batch_of(family))
        assert passes == wanted
        passes.clear()


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "resnet", "vit", "clip"])
def test_every_baseline_has_the_call_of_explain_or_says_why_not(name, family):
    model, batch = (prompted("clip"), batch_of("vit")) if family == "clip" else (tiny(family, "causal" if family in DECODERS else None), batch_of(family))
    options = {"samples": 5, "steps": 3} if name in METHODS else {}
    try:
        made = BASELINES[name](model, targets=TARGETS, contrast=1, **batch, **options)
    except ValueError as error:
        assert name in str(error)
        wanting = {"deep_lift", "guided_backprop", "grad_cam"} if family != "resnet" else {"attention_rollout"}
        assert name in wanting
        return
    assert made.contributions.shape == (3, 2, *(batch["input_ids"].shape[1:] if family in TEXT else (16, 16)))
    torch.testing.assert_close(made.contributions.flatten(2).sum(-1) + made.residual, made.explained_logits)
    assert made.explained_logits[1, 0] == made.explained_logits[2, 1] == 0  # class 1 rather than class 1
    first = BASELINES[name](model, targets=TARGETS[:1], contrast=1, **{key: value[:1] for key, value in batch.items()}, **options)
    if name != "random":
        torch.testing.assert_close(first.contributions[0], made.contributions[0], rtol=1e-5, atol=1e-6)


def test_what_is_missing_is_said(monkeypatch):
    model, batch = tiny("bert"), batch_of("bert")
    with pytest.raises(ValueError, match="at least two tokens"):
        captum_explanation("lime", model, 0, input_ids=batch["input_ids"][:, :1])
    with pytest.raises(ValueError, match="logits at every token"):
        input_x_gradient(tiny("bert", "mlm"), 0, **batch)
    with pytest.raises(ValueError, match="CNNs only"):
        grad_cam(model, **batch)
    with pytest.raises(ValueError, match="transformer"):
        attention_rollout(tiny("resnet"), **batch_of("resnet"))
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"bcos_hf\[baselines\]"):
        captum_explanation("saliency", model, 0, **batch)


@pytest.mark.parametrize("family", ["vit", "resnet", "bert", "clip"])
def test_captum_s_input_x_gradient_in_explanation_mode_is_explain(family):
    if family == "clip":
        embeds, model = prompted("clip").class_embeds, bcosify(prompted("clip").model, b=1.5)
        batch, made = batch_of("vit"), model.explain(**batch_of("vit"), text_embeds=embeds, targets=TARGETS)
        function = lambda x: unit(model.image_embeds(x)) @ embeds.T
    else:
        model, batch = bcosify(tiny(family), b=1.5), batch_of(family)
        made = model.explain(**batch, targets=TARGETS)
        function = lambda x: model(x).logits
    if family == "bert":
        x, dim = model.bert.embeddings(batch["input_ids"]).detach(), -1
        mask = batch["attention_mask"][:, None, None].bool()
        function = lambda x: model.classifier(model.bert.pooler(model.bert.encoder(x, attention_mask=mask).last_hidden_state))
    else:
        x, dim = batch["pixel_values"], 1
    with model.explanation_mode():
        for k in range(2):
            found = attr.InputXGradient(function).attribute(x.clone().requires_grad_(), target=TARGETS[:, k])
            torch.testing.assert_close(found.sum(dim).detach(), made.contributions[:, k])


def rolled_out_slowly(attentions):
    """Abnar & Zuidema, section 3, for one input: attentions [heads, L, L], one a layer."""
    flow = torch.eye(attentions[0].shape[-1], dtype=torch.float64)
    for attention in attentions:
        mean = sum(attention) / len(attention)
        step = torch.stack([0.5 * mean[i] + 0.5 * torch.eye(len(mean), dtype=torch.float64)[i] for i in range(len(mean))])
        flow = torch.einsum("ij,jk->ik", step, flow)
    return flow


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "vit", "deit", "clip"])
def test_attention_rollout(family):
    model, batch = tiny(family), batch_of(family)
    made = attention_rollout(model, targets=TARGETS, **batch)
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    attentions = getattr(model, "vision_model", model)(**batch, output_attentions=True).attentions
    for row in range(3):
        read = int(batch["attention_mask"][row].sum()) - 1 if family in DECODERS else 0
        flow = rolled_out_slowly([attention[row] for attention in attentions])[read]
        if "input_ids" not in batch:
            flow = F.interpolate(flow[-16:].view(1, 1, 4, 4), size=(16, 16), mode="bilinear", align_corners=False)[0, 0]
        for k in range(2):
            torch.testing.assert_close(made.contributions[row, k], flow.detach())


@pytest.mark.parametrize("name", ["input_x_gradient", "grad_cam", "random", "integrated_gradients", "smooth_grad"])
def test_a_caller_may_have_switched_gradients_off(name):
    model, x = tiny("resnet"), batch_of("resnet")["pixel_values"]
    options = {"steps": 3} if name == "integrated_gradients" else {"samples": 2} if name == "smooth_grad" else {}
    expected = BASELINES[name](model, pixel_values=x, targets=1, **options)
    with torch.no_grad():
        made = BASELINES[name](model, pixel_values=x, targets=1, **options)
    torch.testing.assert_close(made.contributions, expected.contributions)
