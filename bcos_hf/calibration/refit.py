"""The refit: every layer of a B-cos twin fitted once, in forward order, to what the standard layer makes of the same
input.

What a conversion costs is the removed bias more than B. The inputs of a layer hold a nearly constant direction, as
activations are mostly positive; least squares without an intercept put the bias there. Weights alone change: the model
has the same classes, the same configuration and the same checkpoint, and works before any training. Targets are the
standard layer on the twin's own input; no label is used, nothing is trained, and no features of two models are
compared.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bcos_hf.data.fingerprints import weights_fingerprint

from .layers import LayerRefit
from .lockstep import Lockstep
from .plan import Plan, Step, plan_of
from .report import LayerFit, warn_of_few_rows
from .sampling import RefitSettings
from .targets import Brought


def refit_(
    twin: PreTrainedModel,
    standard: PreTrainedModel,
    batches: Iterable[dict],
    pixels: tuple[Tensor, Tensor] | None = None,
    progress: bool = True,
    tried: tuple[Sequence[float], dict[str, dict[float, float]]] | None = None,
    **settings,
) -> list[LayerFit]:
    """Fit every layer of `twin`, in place, to what the layers of `standard` make of the same inputs.

    Args:
        twin: a B-cos model made of `standard` by `bcosify` (`from_standard`), on any device.
        standard: the model it was made from; it stays as it is.
        batches: what the twin's forward() takes, each a dict of tensors; labels are ignored. All are held at once, one
            layer's values of each.
        pixels: (mean, std), each [C], that the standard model's images are normalized with; needed for input_encoding
            "add_inverse", whose images are in [0, 1].
        progress: show a bar.
        tried: (exponents, an empty dict): what R^2 each layer has with each of them is written there, layer -> exponent
            -> R^2 (see `choose_b`).
        **settings: those of `RefitSettings`.

    Returns:
        What became of each layer, in order, which is also in `twin.conversion_report.fits`. What is interrupted, or
        fails, leaves the twin as it was.

    Raises:
        ValueError: a twin that cannot be refitted, inputs of another kind, none, or too few, or values that are not
        finite.
    """
    chosen = RefitSettings(**settings)
    start = time.perf_counter()
    batches = [_moved(batch, twin) for batch in batches]
    if not batches:
        raise ValueError("calibration: expected at least one batch of inputs, got none.")
    if getattr(twin.config, "input_encoding", "none") == "add_inverse" and pixels is None:
        raise ValueError(
            "pixels: expected the mean and the standard deviation that the standard model's images are normalized with, got None; with "
            "input_encoding='add_inverse' the twin takes images in [0, 1]. They are the image processor's image_mean and image_std."
        )
    run = _Refit(twin, standard, plan_of(twin, standard), chosen, pixels, batches, tried)
    bar = tqdm(total=len(run.plan.steps), desc="refit", disable=not progress)
    modes = [(model, model.training) for model in (twin, standard)]
    with bar, run.undone_on_error():
        for model, _ in modes:
            model.eval()
        try:
            run.all(bar)
        finally:
            for model, training in modes:
                model.train(training)
        if run.waiting:
            raise ValueError(
                f"calibration: nothing came to {', '.join(sorted(run.waiting)[:3])}. Give what the whole model takes, texts beside images."
            )
    twin.conversion_report.fits = [fit.to_dict() for fit in run.fits]
    samples = sum(len(next(iter(batch.values()))) for batch in batches)
    warn_of_few_rows(run.fits, samples)
    twin.conversion_report.calibration = {
        "samples": samples,
        "rounds": 1,
        "seconds": round(time.perf_counter() - start, 1),
    }
    twin.conversion_report.weights = weights_fingerprint(twin)
    return run.fits


def _moved(batch: dict, twin: PreTrainedModel) -> dict:
    """The tensors of a batch where the twin is, without labels."""
    moved = {
        name: value.to(twin.device)
        for name, value in batch.items()
        if isinstance(value, Tensor) and "label" not in name
    }
    return {name: value.to(twin.dtype) if value.is_floating_point() else value for name, value in moved.items()}


class _Refit:
    """One refit, while it runs."""

    def __init__(self, twin, standard, plan: Plan, settings: RefitSettings, pixels, batches: list[dict], tried) -> None:
        self.tried = tried
        self.twin, self.plan, self.settings, self.batches = twin, plan, settings, batches
        self.modules = dict(twin.named_modules())
        self.lockstep = Lockstep(len(batches))
        self.seen: list[dict[str, Tensor]] = [{} for _ in batches]
        self.fits: list[LayerFit] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        gates = {step.end: step for step in plan.steps.values() if step.times is not None and step.end is not None}
        generator = torch.Generator().manual_seed(settings.seed)
        self.refits = {
            name: LayerRefit(
                step, gates.get(step.times), self.modules, plan.standards, twin.config, pixels, settings, generator
            )
            for name, step in plan.steps.items()
        }
        self.waiting = set(plan.steps)

    def all(self, bar: tqdm) -> None:
        """Run all batches through the twin, fitting each layer when they come to it."""
        self.bar = bar
        hooks = [hook for step in self.plan.steps.values() for hook in self._hooks(step)]
        hooks += [
            self.modules[name].register_forward_pre_hook(self._keep_input(name)) for name in sorted(self.plan.inputs)
        ]
        hooks += [
            self.modules[name].register_forward_hook(self._keep_output(name)) for name in sorted(self.plan.outputs)
        ]
        try:
            self.lockstep.run([lambda batch=batch: self.twin(**batch) for batch in self.batches])
        finally:
            for hook in hooks:
                hook.remove()

    def _keep_input(self, name: str):
        def keep(module: nn.Module, args: tuple) -> None:
            self.seen[self.lockstep.index][name] = args[0]

        return keep

    def _keep_output(self, name: str):
        def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
            self.seen[self.lockstep.index][name] = output

        return keep

    def _hooks(self, step: Step) -> Iterator:
        """On the layer, on what comes before the end of the step, and on that end."""
        name = step.name
        brought: list[Brought | None] = [None] * len(self.batches)

        def kept(output):
            return output.clone() if step.end is not None else output  # the sum before the end may be made in place

        def called(module: nn.Module, args: tuple, kwargs: dict, output) -> None:
            if brought[self.lockstep.index] is not None or name not in self.waiting:
                raise ValueError(
                    f"{name}: expected a layer that is used once in a forward pass, got one that is shared, which cannot be refitted."
                )
            brought[self.lockstep.index] = Brought(args, kwargs, kept(output))

        def passed(module: nn.Module, args: tuple, output: Tensor) -> None:
            brought[self.lockstep.index].output = kept(output)

        def met(arrived: Tensor | None):
            index = self.lockstep.index
            mine, brought[index] = brought[index], None
            if mine is None:
                raise RuntimeError(
                    f"{step.end}: expected {name} to be called before it, as the rules of the family say."
                )
            mine.arrived, mine.mask = arrived, self.batches[index].get("attention_mask")
            mine.seen = {other: self.seen[index][other] for other in self.plan.needed[name]}
            return self.lockstep.meet(name, mine, lambda items: self._fit(name, items))

        layer = self.modules[name]
        if isinstance(
            layer, nn.MultiheadAttention
        ):  # calls another layer that is fitted, so that it is run once only, after its own fit

            def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
                called(module, args, kwargs, ())
                met(None)

            yield layer.register_forward_pre_hook(before, with_kwargs=True)
            return
        yield layer.register_forward_hook(called, with_kwargs=True)
        last = layer
        for other in step.between:
            last = self.modules[other]
            yield last.register_forward_hook(passed)
        if step.end is None:
            yield last.register_forward_hook(lambda module, args, output: met(None))
        else:
            yield self.modules[step.end].register_forward_pre_hook(lambda module, args: (met(args[0]), *args[1:]))

    def _fit(self, name: str, items: list[Brought]) -> list[Tensor]:
        """Fit the layer; returns what each batch goes on with."""
        refit = self.refits[name]
        for tensor in refit.changed():
            self.before.setdefault(id(tensor), (tensor, tensor.detach().clone()))
        exponents, found = self.tried or ((), {})
        fit, measured = refit.fit(items, exponents)
        self.fits.append(fit)
        if measured:
            found[name] = measured
        self.bar.update()
        self.waiting.discard(name)
        if not self.waiting:
            self.lockstep.stop()
            return [None] * len(items)
        return [refit.rerun(item) for item in items]

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Put back what was changed when the refit does not come to its end."""
        try:
            yield
        except BaseException:
            with torch.no_grad():
                for tensor, value in self.before.values():
                    tensor.copy_(value)
            raise
