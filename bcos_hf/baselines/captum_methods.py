"""captum's methods with the call of explain(): a table, and one way in and out for pictures, texts and prompts.

Where: at the pixels, or at the output of the embedding layer, as B-cos models are explained. What: the target logit, less the contrast's; of a
`ZeroShotClassifier`, the cosine with a prompt. Out: channels, or the hidden dimension, are summed. Methods that replace parts of an input by a baseline
(occlusion, LIME, KernelSHAP) switch whole tokens, or square cells of pixels, among which a cell's value is spread evenly.
"""

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bcos_hf.models.bcos_explanation import Explanation
from bcos_hf.models.bcos_sharing import sharing

from .explained_function import Explained, absent, attributed, on_device, shared_out, switches, unexplained


COMPLETE = 0.01  # what DeepLift's contributions may lack, as a part of their absolute sum: more than rounding in float32, less than a wrong rule


@dataclass(frozen=True)
class Options:
    """What methods can be told; each takes what it has a use for.

    Attributes:
        baseline: what stands for absence. "zero", a float, or a tensor that broadcasts to what is explained; of pictures "blur"; of texts "pad", or the
            number of a token (`tokenizer.mask_token_id`): the embeddings of a text of that token alone.
        steps: of integrated gradients. samples: of SmoothGrad, LIME and KernelSHAP.
        noise: of SmoothGrad, its deviation as a part of the range of an input. seed: of what is random; every input is drawn for on its own.
        cell: side of a cell in pixels; None: an eighth of the shorter side. window: how many tokens, or cells along each side, occlusion covers at once.
        batch_size: how many inputs go through the model at once, where a method needs many.
    """

    baseline: str | float | Tensor = "zero"
    steps: int = 50
    samples: int = 200
    noise: float = 0.15
    seed: int = 0
    cell: int | None = None
    window: int = 1
    batch_size: int = 64


@dataclass(frozen=True)
class Method:
    """How one of captum's classes is called.

    Attributes:
        make: captum.attr, function -> explainer. arguments: options, x, baseline -> further arguments of `attribute`.
        switches: it gets switches in the place of x. random: it gets one input at a time, and a seed.
        complete: it must add up to the difference from the baseline. needs: a kind of module without which it is nothing but the gradient.
    """

    make: Callable
    arguments: Callable = lambda options, x, baseline: {}
    switches: bool = False
    random: bool = False
    complete: bool = False
    needs: type[nn.Module] = nn.Module


def _integrated(options: Options, x: Tensor, baseline: Tensor) -> dict:
    return {"baselines": baseline, "n_steps": options.steps, "internal_batch_size": max(options.batch_size, len(x))}


def _noisy(options: Options, x: Tensor, baseline: Tensor) -> dict:
    deviation = options.noise * (x.detach().max() - x.detach().min()).item()
    return {"nt_samples": options.samples, "nt_samples_batch_size": min(options.samples, options.batch_size), "stdevs": deviation}


def _occluded(options: Options, x: Tensor, baseline: Tensor) -> dict:
    window = tuple(min(options.window, side) for side in x.shape[1:])
    return {"sliding_window_shapes": window, "perturbations_per_eval": max(1, options.batch_size // len(x))}


def _sampled(options: Options, x: Tensor, baseline: Tensor) -> dict:
    if x.numel() < 2:
        raise ValueError("expected at least two tokens or cells to switch, got one; explain a longer text, or take a smaller `cell`.")
    return {"n_samples": options.samples, "perturbations_per_eval": options.batch_size}


def _lime(attr, forward: nn.Module):
    linear, core = (importlib.import_module(f"captum.{name}") for name in ("_utils.models.linear_model", "attr._core.lime"))
    # ridge regression, as LIME's authors run it: captum's lasso would shrink numbers as small as cosines to nothing
    return attr.Lime(forward, linear.SkLearnRidge(alpha=1.0), core.get_exp_kernel_similarity_function("cosine", kernel_width=0.25))


METHODS = {
    # Simonyan et al., 2014 (arXiv 1312.6034): absolute gradients
    "saliency": Method(lambda attr, forward: attr.Saliency(forward)),
    # Sundararajan et al., ICML 2017
    "integrated_gradients": Method(lambda attr, forward: attr.IntegratedGradients(forward), _integrated),
    # Smilkov et al., 2017 (arXiv 1706.03825): the mean of absolute gradients at noisy inputs
    "smooth_grad": Method(lambda attr, forward: attr.NoiseTunnel(attr.Saliency(forward)), _noisy, random=True),
    # Shrikumar et al., ICML 2017: the rescale rule
    "deep_lift": Method(lambda attr, forward: attr.DeepLift(forward), lambda options, x, baseline: {"baselines": baseline}, complete=True),
    # Springenberg et al., 2015 (arXiv 1412.6806)
    "guided_backprop": Method(lambda attr, forward: attr.GuidedBackprop(forward), needs=nn.ReLU),
    # Zeiler & Fergus, ECCV 2014; of texts, one token at a time
    "occlusion": Method(lambda attr, forward: attr.Occlusion(forward), _occluded, switches=True),
    # Ribeiro et al., KDD 2016
    "lime": Method(_lime, _sampled, switches=True, random=True),
    # Lundberg & Lee, NeurIPS 2017
    "kernel_shap": Method(lambda attr, forward: attr.KernelShap(forward), _sampled, switches=True, random=True),
}


def captum_explanation(method: str, model, targets=None, contrast=None, **inputs) -> Explanation:
    """Explain a transformers classifier of pictures or texts, or a `ZeroShotClassifier`, after the fact.

    Args:
        method: a name of `METHODS`. model: in evaluation mode, as for `input_x_gradient`. targets, contrast: as in `explain`.
        **inputs: the model's, on any device; and fields of `Options`.

    Returns:
        An Explanation with contributions [N, K, L] (0 at padding) or [N, K, H, W]; what they do not add up to is in `residual`.

    Raises:
        ImportError: captum or, for LIME and KernelSHAP, scikit-learn is not installed.
        ValueError: a method that the model does not allow, or a baseline that there is not.
    """
    options = Options(**{name: inputs.pop(name) for name in list(inputs) if name in Options.__dataclass_fields__})
    how, model, inputs = METHODS[method], sharing(model), on_device(model, inputs)
    if not any(isinstance(module, how.needs) for module in model.modules()):
        raise ValueError(f"{method}: expected a model with a {how.needs.__name__}, whose gradient it changes; a {type(model).__name__} has none.")
    made, x = unexplained(model, targets, contrast, inputs)
    inputs.pop("pixel_values", None)
    mask = inputs.get("attention_mask") if made.pixel_values is None else None
    tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    fixed = {name: value for name, value in inputs.items() if name not in tensors}
    cell = options.cell or max(1, min(x.shape[-2:]) // 8)
    forward = Explained(model, made, list(tensors), fixed, cell)
    rows = [x, absent(options.baseline, model, x, inputs), *tensors.values()]
    found = torch.zeros_like(made.contributions)
    for part in [slice(row, row + 1) for row in range(len(x))] if how.random else [slice(None)]:
        length = x.shape[1] if mask is None else int(mask[part].nonzero()[:, 1].max()) + 1  # neighbours' padding is not the input's
        own, *others = (row[part][:, :length] if row.shape[1:2] == x.shape[1:2] else row[part] for row in rows)
        arguments = (made.targets[part], None if made.contrast is None else made.contrast[part], own, *others)
        forward.memory.clear()
        for k in range(made.targets.shape[1]):
            map_ = _attributed(how, options, forward, k, arguments)
            found[part, k, ..., : map_.shape[-1]] = map_
    found = found if mask is None else found * mask[:, None]
    return attributed(made, found)


def _attributed(how: Method, options: Options, forward: Explained, k: int, arguments: tuple) -> Tensor:
    """Contributions [n, L] or [n, H, W] to the k-th number, by captum, without its remarks and without a trace in the generators."""
    x, baseline = arguments[2:4]
    value = switches(x, forward.cell) if how.switches else x.clone().requires_grad_()
    with warnings.catch_warnings(), torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        warnings.simplefilter("ignore", UserWarning)  # that hooks are set, and removed again
        torch.manual_seed(options.seed)
        given = {"target": k, "additional_forward_args": arguments, **how.arguments(options, value, baseline)}
        found = how.make(_captum(), forward).attribute(value, **given).detach().to(x.dtype)
    if how.complete:
        _check_complete(found, forward, k, arguments)
    return shared_out(found, x, forward.cell) if how.switches else found.sum(-1 if x.dim() == 3 else 1)


@torch.no_grad()
def _check_complete(found: Tensor, forward: Explained, k: int, arguments: tuple) -> None:
    x, baseline = arguments[2:4]
    difference = (forward(x, *arguments) - forward(baseline, *arguments))[:, k]
    missing = (found.flatten(1).sum(1) - difference).abs() / found.flatten(1).abs().sum(1).clamp_min(torch.finfo(found.dtype).tiny)
    if missing.max() > COMPLETE:
        raise ValueError(
            f"deep_lift: expected contributions that add up to the difference from the baseline; {missing.max().item():.2g} of their absolute sum is missing: "
            f"a {type(forward.model).__name__} has more than linear layers, ReLU, tanh, sigmoid and max-pooling. Take another method, as integrated_gradients."
        )


def _captum():
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise ImportError("captum's methods need captum and scikit-learn: pip install 'bcos_hf[baselines]'") from error
