"""What an ONNX file holds: operators, constants, names; read without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mifuse_runtime import protobuf
from mifuse_runtime.known import DTYPES
from mifuse_runtime.protobuf import FormatError, Message
from mifuse_runtime.shapes import FEW, GraphError, Node, Value

OLDEST_OPSET = 13  # before it, operators gave their shapes in other ways
_HALF = 16  # bfloat16, which NumPy does not have
_ATTRIBUTES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
_LISTS = ("floats", "ints", "strings")
# Where else than in raw_data the numbers of a tensor may be, by type: a field, and the bytes that one of
# them takes there, 0 where that varies.
_TYPED = {1: ("float_data", 4), 11: ("double_data", 8), 7: ("int64_data", 0), 12: ("uint64_data", 0)}
_TYPED |= {13: ("uint64_data", 0), **dict.fromkeys((2, 3, 4, 5, 6, 9, 10, _HALF), ("int32_data", 0))}
_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def read_onnx(content: bytes) -> tuple[list[Node], dict[str, Value], dict[str, list[int | None]], list[str]]:
    """Nodes, constants, inputs with their sizes (None: any) and names of the outputs of a model.

    Raises:
        GraphError: no model, one that other readers may take for another, or with parts that no bundle has.
    """
    if content[4:8] == b"ORTM":  # ONNX Runtime's own format, which these letters mark
        raise GraphError("it is an ORT file")
    try:
        model = Message(memoryview(content), protobuf.MODEL)
        opsets = [
            (o.text("domain"), o.number("version")) for o in model.messages("opset_import", protobuf.OPSET)
        ]
        own = [version for domain, version in opsets if domain in ("", "ai.onnx")]
        if len(own) != 1 or own[0] < OLDEST_OPSET:
            raise GraphError(f"its opset is {own}, one of {OLDEST_OPSET} or more expected")
        for _ in model.messages("metadata_props", protobuf.PAIR):
            pass  # read for what is odd alone, here and below
        return _graph(model.message("graph", protobuf.GRAPH))
    except FormatError as error:
        raise GraphError(f"it is not an ONNX model as they are written: {error}") from error


def _graph(
    graph: Message,
) -> tuple[list[Node], dict[str, Value], dict[str, list[int | None]], list[str]]:
    nodes = [_node(node) for node in graph.messages("node", protobuf.NODE)]
    constants: dict[str, Value] = {}
    for tensor in graph.messages("initializer", protobuf.TENSOR):
        name = tensor.text("name")
        if name in constants:
            raise GraphError(f"there are two constants {name!r}")
        constants[name] = _tensor(tensor)
    inputs = dict(_info(info) for info in graph.messages("input", protobuf.INFO))
    outputs = [_info(info)[0] for info in graph.messages("output", protobuf.INFO)]
    for info in graph.messages("value_info", protobuf.INFO):
        _info(info)
    for annotation in graph.messages("quantization_annotation", protobuf.ANNOTATION):
        for _ in annotation.messages("quant_parameter_tensor_names", protobuf.PAIR):
            pass
    for _ in graph.messages("metadata_props", protobuf.PAIR):
        pass
    return nodes, constants, {name: dims for name, dims in inputs.items() if name not in constants}, outputs


def _info(info: Message) -> tuple[str, list[int | None]]:
    """Name and sizes; None for one that is not given."""
    kind = info.message("type", protobuf.TYPE).message("tensor_type", protobuf.TENSOR_TYPE)
    for _ in info.messages("metadata_props", protobuf.PAIR):
        pass
    sizes: list[int | None] = []
    for dim in kind.message("shape", protobuf.SHAPE).messages("dim", protobuf.DIMENSION):
        if dim.has("dim_value") and dim.has("dim_param"):
            raise FormatError("a dimension has a number and a name")
        sizes.append(dim.number("dim_value") if dim.has("dim_value") else None)
    return info.text("name"), sizes


def _node(node: Message) -> Node:
    operator, domain = node.text("op_type"), node.text("domain")
    if domain not in ("", "ai.onnx"):
        raise GraphError(f"the operator {f'{domain}.{operator}'!r} is not one that a bundle may hold")
    for _ in node.messages("metadata_props", protobuf.PAIR):
        pass
    attributes: dict[str, Any] = {}
    for name, value in map(_attribute, node.messages("attribute", protobuf.ATTRIBUTE)):
        if name in attributes:
            raise GraphError(f"{operator} has two attributes {name!r}")
        attributes[name] = value
    if operator == "Constant":
        attributes = {"value": _constant(attributes)}
    return Node(operator, tuple(node.texts("input")), tuple(node.texts("output")), attributes)


def _attribute(attribute: Message) -> tuple[str, Any]:
    name, field = attribute.text("name"), _ATTRIBUTES.get(attribute.number("type"))
    held = [known for known in _ATTRIBUTES.values() if attribute.has(known)]
    if field is None or held not in ([field], [] if field in _LISTS else [field]):
        raise GraphError(f"the attribute {name!r} holds {held} for a type {attribute.number('type')}")
    if field == "i":
        return name, attribute.number("i")
    if field == "ints":
        return name, attribute.numbers("ints")
    if field == "s":
        return name, attribute.text("s")
    if field == "t":
        return name, _tensor(attribute.message("t", protobuf.TENSOR))
    return name, sum(map(len, attribute.pieces("floats"))) // 4 if field == "floats" else None


def _constant(attributes: dict[str, Any]) -> Value:
    ((name, value),) = attributes.items() if len(attributes) == 1 else [("", None)]
    if name == "value" and isinstance(value, Value):
        return value
    if name == "value_int":
        return Value((), np.array(value, np.int64))
    if name == "value_ints" and isinstance(value, list):
        return Value((len(value),), np.array(value, np.int64))
    if name in ("value_float", "value_floats"):
        return Value((int(value),) if name == "value_floats" and value else ())
    raise GraphError("a Constant without a value, or with a text")


def _tensor(tensor: Message) -> Value:
    """Shape, and content where it is short; exactly as many numbers as the shape says must be there."""
    dims, kind = tuple(tensor.numbers("dims")), tensor.number("data_type")
    if kind not in _TYPED or tensor.number("data_location"):
        raise GraphError(f"a tensor has the type {kind} or its data outside the file")
    for _ in tensor.messages("metadata_props", protobuf.PAIR):
        pass
    size = math.prod(dims)
    if min(dims, default=0) < 0:
        raise GraphError(f"a tensor of shape {list(dims)}")
    field, width = _TYPED[kind]
    item = 2 if kind == _HALF else np.dtype(DTYPES[kind]).itemsize
    held = [name for name in _DATA if tensor.has(name)]
    if held not in ([], ["raw_data"], [field]):
        raise GraphError(f"a tensor of type {kind} has its data in {', '.join(held)}")
    raw, found = tensor.content("raw_data"), 0
    if raw:
        found = len(raw) // item if not len(raw) % item else -1
    elif field in held:
        numbers = sum(map(len, tensor.pieces(field))) // width if width else len(tensor.numbers(field))
        found = numbers
    if found != size:
        bytes_held = len(raw) if raw else found * item
        raise GraphError(f"a tensor of shape {list(dims)} has {bytes_held} bytes")
    return Value(
        dims, _content(tensor, kind, field, raw).reshape(dims) if 0 < size <= FEW and kind != _HALF else None
    )


def _content(tensor: Message, kind: int, field: str, raw: memoryview) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[kind])
    if raw:
        return np.frombuffer(raw, dtype)
    if pieces := list(_floats(tensor, field)):
        return np.frombuffer(b"".join(pieces), dtype)
    numbers = tensor.numbers(field)
    if kind == 10:  # the bits of a half
        return np.array(numbers, np.uint16).view(np.float16)
    return np.array(numbers).astype(dtype)


def _floats(tensor: Message, field: str) -> Iterator[memoryview]:
    yield from tensor.pieces(field) if field in ("float_data", "double_data") else ()
