"""ONNX files read as strictly as they are written: what another reader could take otherwise is refused.

Protobuf leaves readers a choice: numbers with needless bytes, keys whose upper bits are dropped, fields that
come twice or are unknown. Whoever checks a file that somebody else runs must not have that choice.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Content = int | memoryview
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_REFUSED = -1
SIZES = {_FIXED64: 8, _FIXED32: 4}
MAX_FIELDS = 1_000_000  # of a file: 10,000 nodes have some 200,000
MAX_PACKED = 1 << 16  # bytes of numbers read one by one; weights are in raw_data
_MOST = 1 << 64


class FormatError(ValueError):
    """The bytes are no such message, or could be read in two ways."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a message may hold under a number."""

    name: str
    wire: int = _LENGTH
    repeated: bool = False
    packed: bool = False  # numbers one behind the other in one field; they may come singly, too
    bits: int = 64  # a reader drops what is above them


Schema = Mapping[int, Field]


def _number(name: str, bits: int = 32) -> Field:
    return Field(name, _VARINT, bits=bits)


def _numbers(name: str, wire: int = _VARINT, bits: int = 64) -> Field:
    return Field(name, wire, repeated=True, packed=True, bits=bits)


def _many(name: str) -> Field:
    return Field(name, repeated=True)


def _never(name: str) -> Field:
    return Field(name, _REFUSED)


# Of onnx.proto (ONNX 1.23), what a model of one graph needs; all else is refused.
MODEL: Schema = {
    1: _number("ir_version", 64), 2: Field("producer_name"), 3: Field("producer_version"), 4: Field("domain"),
    5: _number("model_version", 64), 6: Field("doc_string"), 7: Field("graph"), 8: _many("opset_import"),
    14: _many("metadata_props"), 20: _never("training graphs"), 25: _never("functions"),
}  # fmt: skip
OPSET: Schema = {1: Field("domain"), 2: _number("version", 64)}
PAIR: Schema = {1: Field("key"), 2: Field("value")}
GRAPH: Schema = {
    1: _many("node"), 2: Field("name"), 5: _many("initializer"), 10: Field("doc_string"), 11: _many("input"),
    12: _many("output"), 13: _many("value_info"), 14: _many("quantization_annotation"),
    15: _never("sparse tensors"), 16: _many("metadata_props"),
}  # fmt: skip
ANNOTATION: Schema = {1: Field("tensor_name"), 2: _many("quant_parameter_tensor_names")}
NODE: Schema = {
    1: _many("input"), 2: _many("output"), 3: Field("name"), 4: Field("op_type"), 5: _many("attribute"),
    6: Field("doc_string"), 7: Field("domain"), 9: _many("metadata_props"),
}  # fmt: skip
ATTRIBUTE: Schema = {
    1: Field("name"), 2: Field("f", _FIXED32), 3: _number("i", 64), 4: Field("s"), 5: Field("t"),
    6: _never("subgraphs"), 11: _never("subgraphs"), 22: _never("sparse tensors"),
    23: _never("sparse tensors"),
    7: _numbers("floats", _FIXED32), 8: _numbers("ints"), 9: _many("strings"), 13: Field("doc_string"),
    20: _number("type"),
}  # fmt: skip
TENSOR: Schema = {
    1: _numbers("dims"), 2: _number("data_type"), 4: _numbers("float_data", _FIXED32),
    5: _numbers("int32_data", bits=32), 7: _numbers("int64_data"), 8: Field("name"), 9: Field("raw_data"),
    10: _numbers("double_data", _FIXED64), 11: _numbers("uint64_data"), 12: Field("doc_string"),
    13: _never("data outside the file"), 14: _number("data_location"), 16: _many("metadata_props"),
}  # fmt: skip
INFO: Schema = {1: Field("name"), 2: Field("type"), 3: Field("doc_string"), 4: _many("metadata_props")}
TYPE: Schema = {1: Field("tensor_type"), 6: Field("denotation")}
TENSOR_TYPE: Schema = {1: _number("elem_type"), 2: Field("shape")}
SHAPE: Schema = {1: _many("dim")}
DIMENSION: Schema = {1: _number("dim_value", 64), 2: Field("dim_param"), 3: Field("denotation")}


class Message:
    """The fields of a message by name; those that are absent are empty.

    Args:
        content: the bytes of the message.
        left: ends when the file has had as many fields as it may have, so that reading has an end, too.

    Raises:
        FormatError: unknown fields, fields twice, needless bytes, or an end within a field.
    """

    def __init__(self, content: memoryview, schema: Schema, left: Iterator[int] | None = None) -> None:
        self._fields: dict[str, list[Content]] = {}
        self._left = iter(range(MAX_FIELDS)) if left is None else left
        for field, value in _fields(content, schema):
            if next(self._left, None) is None:
                raise FormatError(f"it has more than {MAX_FIELDS} fields")
            found = self._fields.setdefault(field.name, [])
            if found and not field.repeated:
                raise FormatError(f"the field {field.name!r} comes twice")
            if field.wire == _VARINT and isinstance(value, memoryview):
                found += _unpacked(value, field)
            else:
                found.append(value)

    def has(self, name: str) -> bool:
        """Whether the field is there, also with nothing in it."""
        return name in self._fields

    def number(self, name: str, default: int = 0) -> int:
        """A whole number, negative ones as such."""
        return next(iter(self.numbers(name)), default)

    def numbers(self, name: str) -> list[int]:
        """Whole numbers, negative ones as such."""
        found = [value for value in self._fields.get(name, []) if isinstance(value, int)]
        return [value - _MOST if value >= 1 << 63 else value for value in found]

    def pieces(self, name: str) -> list[memoryview]:
        """The bytes of a field, each time that it comes."""
        return [value for value in self._fields.get(name, []) if isinstance(value, memoryview)]

    def content(self, name: str) -> memoryview:
        """The bytes of a field that comes once."""
        return next(iter(self.pieces(name)), memoryview(b""))

    def text(self, name: str) -> str:
        """A field of text.

        Raises:
            FormatError: it is not UTF-8.
        """
        return _text(self.content(name))

    def texts(self, name: str) -> list[str]:
        """Fields of text."""
        return [_text(piece) for piece in self.pieces(name)]

    def message(self, name: str, schema: Schema) -> Message:
        """A message within this one."""
        return Message(self.content(name), schema, self._left)

    def messages(self, name: str, schema: Schema) -> Iterator[Message]:
        """Messages within this one, each read when it is its turn."""
        return (Message(piece, schema, self._left) for piece in self.pieces(name))


def _fields(message: memoryview, schema: Schema) -> Iterator[tuple[Field, Content]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key >= 1 << 32:
            raise FormatError("a key is longer than 32 bits")
        wire, field = key & 7, schema.get(key >> 3)
        if field is None:
            raise FormatError(f"a field of number {key >> 3} is none that a bundle may hold")
        if field.wire == _REFUSED:
            raise FormatError(f"it holds {field.name}, which a bundle may not")
        if wire != field.wire and not (field.packed and wire == _LENGTH):
            raise FormatError(f"the field {field.name!r} is written in another way than ONNX has it")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, _within(value, field)
            continue
        size, at = _varint(message, at) if wire == _LENGTH else (SIZES[wire], at)
        if size > len(message) - at:
            raise FormatError("a field is longer than its message")
        if field.packed and field.wire != _VARINT and size % SIZES[field.wire]:
            raise FormatError(f"the field {field.name!r} ends within a number")
        yield field, message[at : at + size]
        at += size


def _unpacked(packed: memoryview, field: Field) -> Iterator[int]:
    if len(packed) > MAX_PACKED:
        raise FormatError(
            f"the field {field.name!r} has more than {MAX_PACKED} bytes of numbers, not as raw_data"
        )
    at = 0
    while at < len(packed):
        number, at = _varint(packed, at)
        yield _within(number, field)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number and the place behind it; written in as few bytes as it can be."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise FormatError("a number is cut short")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if (shift and not byte) or value >= _MOST:
                raise FormatError("a number is written with needless bytes")
            return value, at
    raise FormatError("a number is longer than 10 bytes")


def _within(value: int, field: Field) -> int:
    if field.bits == 32 and (1 << 31) <= value < _MOST - (
        1 << 31
    ):  # negative numbers are written with 64 bits
        raise FormatError(f"the field {field.name!r} is longer than 32 bits")
    return value


def _text(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("a name is not UTF-8") from error
