"""One trace for each architecture: its graph is kept, and the weights of the next model are filled in.

To trace a student takes 5 s of a core, to fill in its weights and fold them 0.2 s. Students of several seeds
or targets, and a model trained with int8's rounding, differ in their weights alone.
"""

from __future__ import annotations

import functools
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

KEPT = 8  # graphs, some 100 kB each: they hold no weights
_PLAIN = (bool, int, float, complex, str, bytes, types.NoneType, torch.dtype, torch.device, type)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, property, staticmethod, classmethod)
_graphs: OrderedDict[Hashable, Any] = OrderedDict()


def traced(
    model: nn.Module,
    example: torch.Tensor,
    trace: Callable[[nn.Module, torch.Tensor], torch.onnx.ONNXProgram],
) -> torch.onnx.ONNXProgram:
    """The graph of `model` with its weights, constants folded: byte for byte what a trace of its own gives.

    Args:
        example: what the model is traced on.
        trace: without optimisation: then all weights are in the graph under their own names.
    """
    built = architecture(model)
    key = None if built is None else (example.shape, built)
    graph = None if key is None else _graphs.get(key)
    if graph is None:
        program = trace(model, example)
        graph = program.model
        if key is not None and hasattr(graph, "clone"):  # onnx_ir has it since 0.1.13
            _graphs[key] = _without_weights(graph, model)
            if len(_graphs) > KEPT:
                _graphs.popitem(last=False)
    else:
        program = torch.onnx.ONNXProgram(graph.clone(), None)
        weights = {name: tensor for name, tensor in _weights(model) if name in graph.graph.initializers}
        program.apply_weights(weights)
    program.optimize()
    return program


def _without_weights(graph: Any, model: nn.Module) -> Any:
    empty = graph.clone()
    for name, _ in _weights(model):
        if name in empty.graph.initializers:
            empty.graph.initializers[name].const_value = None
    return empty


def architecture(model: nn.Module) -> Hashable | None:
    """All that a trace of `model` can depend on but the values of its weights; None: that cannot be said."""
    seen: dict[int, int] = {}  # which weights are the same tensor
    weights = tuple(
        (name, tensor.shape, tensor.stride(), tensor.dtype, seen.setdefault(id(tensor), len(seen)))
        for name, tensor in _weights(model)
    )
    try:
        modules = tuple(
            (name, type(module), _code(type(module)), _plain(_settings(module)))
            for name, module in model.named_modules(remove_duplicate=False)
        )
        hash(modules)
    except TypeError:
        return None
    return weights, modules


def _weights(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    parameters = model.named_parameters(remove_duplicate=False)
    return [*parameters, *model.named_buffers(remove_duplicate=False)]


def _settings(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if name not in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
    }


@functools.lru_cache(maxsize=256)
def _classes(kind: type) -> tuple[type, ...]:
    return tuple(one for one in kind.__mro__ if one not in (nn.Module, object))


def _code(kind: type) -> tuple[Any, ...]:
    """The methods as they are now: a notebook may give a class others."""
    return tuple(
        value for one in _classes(kind) for value in vars(one).values() if isinstance(value, _FUNCTIONS)
    )


def _plain(value: Any) -> Hashable:
    """A setting with its type, which tells 1 from True.

    Raises:
        TypeError: it cannot be compared, as tensors, hooks and objects of other libraries.
    """
    if isinstance(value, dict):
        return "dict", tuple((_plain(key), _plain(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_plain, value))
    if isinstance(value, _PLAIN + _FUNCTIONS):
        return type(value), value
    raise TypeError(f"{type(value).__name__} is no plain setting")
