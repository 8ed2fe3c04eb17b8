"""What an OpenVINO IR holds: operators, constants, names; read without running it, in the words of ONNX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mifuse_runtime.known import DTYPES
from mifuse_runtime.shapes import FEW, GraphError, Node, Of, Value

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# Types of numbers, as ONNX counts them; None: bfloat16, which NumPy does not have.
_TYPES = {
    "f32": 1, "u8": 2, "i8": 3, "u16": 4, "i16": 5, "i32": 6, "i64": 7, "boolean": 9, "f16": 10, "f64": 11,
    "u32": 12, "u64": 13, "bf16": 16,
}  # fmt: skip
# Elements and where they stand. Engines look some of them up by name, at any depth.
_PLACES = {
    "net": ("layers", "edges", "rt_info"),
    "layers": ("layer",),
    "layer": ("data", "input", "output", "rt_info"),
    "input": ("port",), "output": ("port",), "port": ("dim", "rt_info"),
    "edges": ("edge",), "data": (), "edge": (), "dim": (),
}  # fmt: skip
_ONCE = ("layers", "edges", "data", "input", "output")
_DECLARATION = re.compile(r'<\?xml version="1\.0"( encoding="(utf|UTF)-8")?\s*\?>')
_NUMBERS = re.compile(r"(-?[0-9]{1,18}(, ?-?[0-9]{1,18})*)?")
_FORBIDDEN = {
    "<!": "entities, comments or unparsed text", "<?": "instructions", "&#": "characters by number",
    "xmlns": "namespaces", "\0": "a zero byte",
}  # fmt: skip


def read_openvino(
    xml: bytes, weights: bytes | int
) -> tuple[list[Node], dict[str, Value], dict[str, list[int | None]], list[str]]:
    """As `read_onnx`, of an IR and the .bin beside it.

    Raises:
        GraphError: no IR, one that other readers may take for another, or with parts that no bundle has.
    """
    net = _parsed(xml)
    layers = {layer.get("id", ""): layer for layer in net.iterfind("./layers/layer")}
    if len(layers) != len(net.findall("./layers/layer")):
        raise GraphError("two layers have one number")
    sources = _sources(net)
    nodes: list[Node] = []
    constants: dict[str, Value] = {}
    inputs: dict[str, list[int | None]] = {}
    outputs: list[str] = []
    for number, layer in layers.items():
        ports = [f"{number}:{port.get('id')}" for port in layer.iterfind("./output/port")]
        given = [sources.get(f"{number}:{port.get('id')}", "") for port in layer.iterfind("./input/port")]
        kind, data = (
            layer.get("type", ""),
            dict(element.attrib if (element := layer.find("data")) is not None else {}),
        )
        version = layer.get("version", "opset1")  # without one, OpenVINO does not know the operator
        # The first BatchNormInference has its inputs in another order.
        if not re.fullmatch(r"opset\d{1,3}", version) or (kind, version) == ("BatchNormInference", "opset1"):
            raise GraphError(f"the operator {kind!r} of {version!r} is not one that a bundle may hold")
        if kind == "Parameter":
            inputs[ports[0] if ports else number] = [
                _size(part) for part in re.split(r",\s*", data.get("shape", "")) if part
            ]
        elif kind == "Result":
            outputs += given
        elif kind == "Const":
            constants[ports[0] if ports else number] = _constant(data, weights)
        elif kind in OPERATORS:
            nodes += _translated(kind, given, ports, data)
        else:
            raise GraphError(f"the operator {kind!r} is not one that a bundle may hold")
    return nodes, constants, inputs, outputs


def _parsed(xml: bytes) -> Element:
    from xml.etree import ElementTree  # only where OpenVINO is used

    try:
        text = xml.decode("utf-8")
    except UnicodeDecodeError as error:
        raise GraphError("it is not an OpenVINO model: not in UTF-8") from error
    body = text[found.end() :] if (found := _DECLARATION.match(text)) else text
    for letters, what in _FORBIDDEN.items():
        if letters in body:
            raise GraphError(f"it holds {what}")
    try:
        net = ElementTree.fromstring(body)  # noqa: S314, no entities: see above
    except (ElementTree.ParseError, ValueError) as error:
        raise GraphError(f"it is not an OpenVINO model ({error})") from error
    if net.tag != "net":
        raise GraphError("it is not an OpenVINO model: no net")
    _check_places(net)
    return net


def _check_places(net: Element) -> None:
    """Every element stands where it belongs, and once where there is one."""
    left = [net]
    while left:
        element = left.pop()
        names = [child.tag for child in element]
        for child in element:
            if child.tag == "rt_info":  # notes; but nothing in them may look like a part of the graph
                if any(inner.tag in _PLACES or "}" in inner.tag for inner in child.iter()):
                    raise GraphError("parts of the graph stand within rt_info")
                continue
            if child.tag not in _PLACES.get(element.tag, ()):
                raise GraphError(f"a {child.tag!r} stands within a {element.tag!r}")
            if child.tag in _ONCE and names.count(child.tag) > 1:
                raise GraphError(f"a {element.tag!r} has two {child.tag!r}")
            left.append(child)


def _sources(net: Element) -> dict[str, str]:
    """What each input takes: layer:port -> layer:port."""
    found: dict[str, str] = {}
    for edge in net.iterfind("./edges/edge"):
        target = f"{edge.get('to-layer')}:{edge.get('to-port')}"
        if target in found:
            raise GraphError(f"two edges lead to {target}")
        found[target] = f"{edge.get('from-layer')}:{edge.get('from-port')}"
    return found


def _size(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def numbers(data: Mapping[str, str], name: str, default: str = "") -> list[int]:
    """Whole numbers in an attribute, as every reader reads them."""
    text = data.get(name, default)
    if not _NUMBERS.fullmatch(text):
        raise GraphError(f"it is not an OpenVINO model: {name} is {text[:40]!r} where whole numbers belong")
    return [int(part) for part in text.split(",") if part]


def _constant(data: Mapping[str, str], weights: bytes | int) -> Value:
    held = weights if isinstance(weights, int) else len(weights)
    shape, kind = tuple(numbers(data, "shape")), _TYPES.get(data.get("element_type", "f32"))
    (offset,), (size,) = numbers(data, "offset", "0"), numbers(data, "size", "0")
    if kind is None:
        raise GraphError(f"a tensor has the type {data.get('element_type')!r}")
    item = 2 if kind == 16 else np.dtype(DTYPES[kind]).itemsize
    count = math.prod(shape)
    if min([offset, *shape], default=0) < 0 or count * item != size or size > held - offset:
        raise GraphError(f"a tensor of shape {list(shape)} has {size} bytes at {offset} of {held}")
    if isinstance(weights, int) or not 0 < count <= FEW or kind == 16:
        return Value(shape)
    return Value(shape, np.frombuffer(weights, DTYPES[kind], count, offset).copy().reshape(shape))


Translate = Callable[["list[str]", Mapping[str, str]], "tuple[str, list[str], dict[str, Any]]"]


def _translated(kind: str, given: list[str], ports: list[str], data: Mapping[str, str]) -> list[Node]:
    if data.get("auto_broadcast", "numpy") not in ("numpy", "none"):
        raise GraphError(f"{kind} with auto_broadcast {data['auto_broadcast']!r}")
    known = OPERATORS[kind]
    name, inputs, attributes = (known, given, {}) if isinstance(known, str) else known(given, data)
    return [Node(name, tuple(inputs), tuple(ports), attributes)]


def _with(name: str, **attributes: Callable[[Mapping[str, str]], Any]) -> Translate:
    """An operator with attributes that are read from its data."""
    return lambda given, data: (name, given, {key: read(data) for key, read in attributes.items()})


def _number(name: str, default: int = 0) -> Callable[[Mapping[str, str]], int]:
    return lambda data: (numbers(data, name) or [default])[0]


def _flag(name: str, default: str = "false") -> Callable[[Mapping[str, str]], int]:
    return lambda data: int(data.get(name, default) in ("true", "1", "True"))


def _window(name: str, kernel: bool = False) -> Translate:
    def translate(given: list[str], data: Mapping[str, str]) -> tuple[str, list[str], dict[str, Any]]:
        auto = {"same_upper": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID"}
        attributes: dict[str, Any] = {
            "strides": numbers(data, "strides"), "dilations": numbers(data, "dilations"),
            "pads": numbers(data, "pads_begin") + numbers(data, "pads_end"),
            "auto_pad": auto.get(data.get("auto_pad", "explicit"), "NOTSET"),
        }  # fmt: skip
        if kernel:
            attributes["kernel_shape"] = numbers(data, "kernel")
            attributes["ceil_mode"] = int(data.get("rounding_type", "floor") != "floor")
        return name, given, attributes

    return translate


def _slice(given: list[str], data: Mapping[str, str]) -> tuple[str, list[str], dict[str, Any]]:
    source, start, stop, step, *axes = given
    return "Slice", [source, start, stop, axes[0] if axes else "", step], {}


def _gather(given: list[str], data: Mapping[str, str]) -> tuple[str, list[str], dict[str, Any]]:
    return "Gather", given[:2], {"axis": Of(given[2]), "batch_dims": _number("batch_dims")(data)}


def _strided_slice(given: list[str], data: Mapping[str, str]) -> tuple[str, list[str], dict[str, Any]]:
    masks = {
        name: numbers(data, f"{name}_mask")
        for name in ("begin", "end", "new_axis", "shrink_axis", "ellipsis")
    }
    return "StridedSlice", given, masks


def _broadcast(given: list[str], data: Mapping[str, str]) -> tuple[str, list[str], dict[str, Any]]:
    if data.get("mode", "numpy") not in ("numpy", "bidirectional"):
        raise GraphError(f"Broadcast in the mode {data['mode']!r}")
    return "Broadcast", given[:2], {}


_REDUCED = {
    f"Reduce{name}": _with(f"Reduce{name}", keepdims=_flag("keep_dims"), noop_with_empty_axes=lambda data: 1)
    for name in ("L2", "Max", "Mean", "Min", "Sum")
}
_SAME_NAME = """
Abs Add Cos CumSum DFT Elu Equal Erf Exp FakeQuantize Floor GRUSequence Gelu Greater LSTMSequence Less Log
PRelu Pad RDFT RandomUniform Round Sigmoid Sin SquaredDifference Sqrt Squeeze Tanh Transpose Unsqueeze
"""
OPERATORS: dict[str, str | Translate] = {
    **{name: name for name in _SAME_NAME.split()},
    **_REDUCED,
    "Clamp": "Clip", "HSigmoid": "HardSigmoid", "HSwish": "HardSwish", "MVN": "Identity", "Maximum": "Max",
    "Minimum": "Min", "Multiply": "Mul", "Negative": "Neg", "Power": "Pow", "ReLU": "Relu", "Select": "Where",
    "ShapeOf": "Shape", "SoftMax": "Softmax", "Subtract": "Sub", "Swish": "Identity",
    "BatchNormInference": "BatchNormalization",
    "AvgPool": _window("AveragePool", kernel=True), "MaxPool": _window("MaxPool", kernel=True),
    "Broadcast": _broadcast,
    "Concat": _with("Concat", axis=_number("axis")),
    "Convert": _with("Cast", to=lambda data: _TYPES.get(data.get("destination_type", ""), 0)),
    "Convolution": _window("Conv"), "GroupConvolution": _window("GroupConvolution"),
    "Divide": _with("Div", floor=_flag("m_pythondiv", "true")),
    "FloorMod": "Mod", "Mod": _with("Mod", fmod=lambda data: 1),
    "Gather": _gather,
    "MatMul": _with("MatMul", transA=_flag("transpose_a"), transB=_flag("transpose_b")),
    "Reshape": _with("Reshape", allowzero=lambda data: 1 - _flag("special_zero")(data)),
    "Slice": _slice, "StridedSlice": _strided_slice,
    "Split": lambda given, data: ("Split", given[:1], {"axis": Of(given[1])}),
    "VariadicSplit": lambda given, data: ("Split", [given[0], given[2]], {"axis": Of(given[1])}),
    "STFT": _with("STFT", transposed=_flag("transpose_frames")),
}  # fmt: skip
