"""Fake quantisation: layers that compute in PyTorch as in int8, for a model to learn to live with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mifuse_export.quantize import Ranges, layers

WEIGHT_LEVELS = 64  # of a weight on each side of zero: 7 bits, see `quantize.quantize`
ACTIVATION_LEVELS = 255  # above the lowest one


@dataclass(frozen=True)
class Rounding:
    """How far the values before and behind a layer reach."""

    inputs: tuple[float, float]
    outputs: tuple[float, float]


def roundings(model: onnx.ModelProto, ranges: Ranges) -> dict[str, Rounding]:
    """Where int8 in every layer rounds, by the names that the layers have in PyTorch."""
    graph = model.graph
    quantised = set(layers(model))
    weights = {tensor.name for tensor in graph.initializer}
    clipped = {node.input[0]: node.output[0] for node in graph.node if node.op_type in ("Relu", "Clip")}
    found = {}
    for node in graph.node:
        if node.name in quantised:
            weight = next(name for name in node.input if name in weights)
            values = next(n for n in node.input if n not in weights)
            behind = clipped.get(node.output[0], node.output[0])
            found[weight.rpartition(".")[0]] = Rounding(ranges[values], ranges[behind])
    return found


def insert(model: nn.Module, places: Mapping[str, Rounding]) -> None:
    """Put rounding into the layers of `model` that `places` names; `remove` takes it out again."""
    for name, place in places.items():
        model.set_submodule(name, Int8(model.get_submodule(name), place))


def remove(model: nn.Module) -> None:
    """Take out what `insert` put in; the layers keep what they learnt."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Int8):
            model.set_submodule(name, module.layer)


class Int8(nn.Module):
    """A convolution or linear layer as int8 computes it; gradients pass the rounding as if it were not there.

    uint8 in and out, int8 weights per channel. A norm behind the layer has to be folded into it before.
    Source: Jacob et al., arXiv 1712.05877, 3.
    """

    def __init__(self, layer: nn.Module, place: Rounding) -> None:
        super().__init__()
        self.layer, self.place = layer, place

    def forward(self, x: Tensor) -> Tensor:
        # bfloat16, which training may use, has no more levels than uint8.
        with torch.autocast(x.device.type, enabled=False):
            weight = _rounded_weight(self.layer.get_parameter("weight"))
            y: Tensor = functional_call(
                self.layer, {"weight": weight}, (_rounded(x.float(), self.place.inputs),)
            )
            return _rounded(y, self.place.outputs)


def _rounded(x: Tensor, ends: tuple[float, float]) -> Tensor:
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    scale = max(high - low, 1e-30) / ACTIVATION_LEVELS
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, ACTIVATION_LEVELS)


def _rounded_weight(weight: Tensor) -> Tensor:
    scale = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-30) / WEIGHT_LEVELS
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS)
