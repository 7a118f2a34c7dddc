"""explain() for pictures, and classification of each position before pooling.

The explained input is the encoded picture, [z, -z] or [x, 1 - x]: contributions are summed over its channels, and the rows of W(x) keep them, from
which a colour is read at each pixel. Sources: Boehle et al., CVPR 2022 (arXiv 2205.10268) section 3; Arya et al., NeurIPS 2024 (arXiv 2411.00715)
section 3.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from .bcos_class_names import asked_labels, class_names
from .bcos_explaining import check_finite, explained
from .bcos_explanation import Explanation
from .bcos_given import image_inputs
from .bcos_inputs import InputEncoding
from .bcos_layers import BcosConv2d
from .modeling_bcos import BcosModelMixin, leaf_at


class BcosVisionModelMixin(BcosModelMixin):
    """`BcosModelMixin` for models of pictures."""

    def explain(
        self, pixel_values: Tensor, targets=None, contrast=None, return_weights: bool = True, chunk: int | None = None, **inputs
    ) -> Explanation:  # fmt: skip
        """Explain logits exactly, by the contributions of the pixels.

        Args:
            pixel_values: [N, C, H, W] as the image processor gives them, on any device.
            targets: classes to explain; None is the predicted one. A number or a name, a list, or a LongTensor [N] or
                [N, K]; K costs one forward pass.
            contrast: classes to speak against ('why a rather than b'), given like `targets`; or "mean" for the mean over classes.
            return_weights: keep the rows of W(x), [N, K, 2C, H, W] ([N, K, C, H, W] with input_encoding "none").
            chunk: how many targets share a backward pass; None: 8 on an accelerator, 1 on a CPU.
            **inputs: what forward takes besides (interpolate_pos_encoding, ...); labels are ignored.

        Returns:
            An Explanation. The model, its gradients, its mode and the tensors given are left as found.

        Raises:
            ValueError: no picture, another number of channels, a size that the model cannot take, a class that does not exist.
            TypeError: a model without a head, which has no logits.
        """
        channels, pixel_values = self.config.num_channels, image_inputs(pixel_values)
        if not isinstance(pixel_values, Tensor) or pixel_values.dim() != 4 or pixel_values.shape[1] != channels or 0 in pixel_values.shape:
            got = list(pixel_values.shape) if isinstance(pixel_values, Tensor) else type(pixel_values).__name__
            raise ValueError(f"pixel_values: expected a tensor [N, {channels}, H, W] with N, H, W >= 1, got {got}. Convert pictures with the image processor.")
        pixel_values = pixel_values.detach().to(self.device, self.dtype)
        inputs = {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in inputs.items() if name != "labels"}
        check_finite("pixel_values", pixel_values)
        self._input_encoding().check(pixel_values)
        probe = torch.zeros(len(pixel_values), device=self.device, dtype=self.dtype, requires_grad=True)
        with self._explaining(probe) as model, leaf_at(model._input_encoding()) as leaf:
            logits = model._logits_to_explain(pixel_values, **inputs)
            labels = class_names(self.config, logits.shape[1])
            asked = asked_labels(targets, contrast, labels)
            made = explained(logits, leaf[0], probe, *asked, channel_dim=1, chunk=chunk)
        weights = made.weights if return_weights else None
        return self._stated(replace(made, weights=weights, labels=labels, pixel_values=pixel_values))

    def _logits_to_explain(self, pixel_values: Tensor, **inputs) -> Tensor:
        logits = getattr(self(pixel_values=pixel_values, **inputs), "logits", None)
        if logits is None:
            raise TypeError(f"explain: expected a model with a head, that gives logits; {type(self).__name__} has none.")
        return logits

    def _input_encoding(self) -> InputEncoding:
        return next(module for module in self.modules() if isinstance(module, InputEncoding))


class BcosImageClassifierMixin(BcosVisionModelMixin):
    """A classifier that can classify each position and then take the mean of the logits (`config.head_before_pooling`)."""

    def __init__(self, config, *args, **kwargs) -> None:
        super().__init__(config, *args, **kwargs)
        if config.head_before_pooling and config.bcos_eps is None and self.is_convolutional:
            self._head().eps = BcosConv2d.eps  # there the head is a 1x1 convolution, as published

    # whether last_hidden_state is a map [N, C, H, W]
    is_convolutional = True

    def _head(self) -> nn.Module:
        return self.get_submodule(self.roles.logits[0])

    def _base_output(self, pixel_values: Tensor, **kwargs):
        """The output of the model without a head."""
        return self.base_model(pixel_values, **kwargs)

    def _positions(self, hidden: Tensor) -> Tensor:
        """What the head sees at each position, [N, positions, C], of `last_hidden_state`."""
        return hidden.flatten(2).transpose(1, 2)

    def forward(self, pixel_values: Tensor | None = None, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs):
        """As the transformers classifier; with `config.head_before_pooling` the logits [N, num_labels] are the mean of those at each position."""
        if pixel_values is None:
            raise ValueError("pixel_values: expected a tensor [N, C, H, W], got None.")
        return_dict = self.config.return_dict if return_dict is None else return_dict
        if not self.config.head_before_pooling:
            return super().forward(pixel_values=pixel_values, labels=labels, return_dict=return_dict, **kwargs)
        output = self._base_output(pixel_values, return_dict=True, **kwargs)
        logits = self._head()(self._positions(output.last_hidden_state)).mean(1)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        made = ImageClassifierOutput(loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=getattr(output, "attentions", None))
        return made if return_dict else made.to_tuple()
