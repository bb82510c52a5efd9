"""Protocol buffers of other programs: which kind of model a file holds, by the fields it has.

A protocol buffer has no magic bytes. It is a row of fields, each a number with a wire type and a
value (https://protobuf.dev/programming-guides/encoding), and the numbers are published: in
onnx.proto, Core ML's Model.proto, TensorFlow's saved_model.proto, meta_graph.proto and graph.proto,
and PaddlePaddle's framework.proto. A file is of a kind when its first fields are all known to it,
those that it never lacks are there, and the same is true of a message inside.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, NamedTuple

_NUMBER, _WITH_LENGTH = 0, 2  # wire types
_LOOKED_AT = 64  # fields: a graph has thousands, one a node


@dataclass(frozen=True)
class _Message:
    """What the messages of one kind look like.

    Attributes:
        fields: Wire type of each field by its number.
        required: Sets of numbers; every message has a field of each set.
        inside: Number of a field that is looked into, and what its message looks like.
    """

    fields: Mapping[int, int]
    required: tuple[Container[int], ...] = ()
    inside: tuple[int, _Message] | None = None


def _all_with_length(*numbers: int) -> dict[int, int]:
    return dict.fromkeys(numbers, _WITH_LENGTH)


_CORE_ML_TYPES = range(200, 3001)  # a field a type of model
_KINDS = {
    "an ONNX model": _Message(
        _all_with_length(2, 3, 4, 6, 7, 8, 14, 20, 25, 26) | {1: _NUMBER, 5: _NUMBER},
        required=({1}, {7}),
        inside=(7, _Message(_all_with_length(1, 2, 5, *range(10, 17)), required=({1, 2, 5, 11},))),
    ),
    "a Core ML model": _Message(
        _all_with_length(2, *_CORE_ML_TYPES) | {1: _NUMBER, 10: _NUMBER},
        required=({1}, {2}, _CORE_ML_TYPES),
    ),
    "a TensorFlow SavedModel": _Message(
        {1: _NUMBER, 2: _WITH_LENGTH},
        required=({1}, {2}),
        inside=(2, _Message(_all_with_length(*range(1, 8)), required=({1}, {2}))),
    ),
    "a TensorFlow graph": _Message(
        _all_with_length(1, 2, 4, 5) | {3: _NUMBER},
        required=({1},),
        inside=(1, _Message(_all_with_length(*range(1, 8)), required=({1}, {2}))),
    ),
    "a program of PaddlePaddle": _Message(
        _all_with_length(1, 4, 5),
        required=({1},),
        inside=(
            1,
            _Message(_all_with_length(3, 4) | {1: _NUMBER, 2: _NUMBER, 5: _NUMBER}, ({1}, {2})),
        ),
    ),
}


def protobuf_kind(file: BinaryIO) -> str | None:
    """What model a protocol buffer holds, such as "an ONNX model"; None when it is none of them.

    Only its first fields are read, so that the size of the file does not matter.
    """
    size = file.seek(0, os.SEEK_END)
    for kind, message in _KINDS.items():
        if _matches(file, 0, size, message):
            return kind
    return None


def _matches(file: BinaryIO, start: int, end: int, message: _Message) -> bool:
    fields = list(islice(read_fields(file, start, end), _LOOKED_AT))
    if any(message.fields.get(field.number) != field.wire_type for field in fields):
        return False
    for choice in message.required:
        if not any(field.number in choice for field in fields):
            return False
    if message.inside is None:
        return True
    number, inner = message.inside
    field = next(field for field in fields if field.number == number)
    return _matches(file, field.begin, field.end, inner)


class Field(NamedTuple):
    """A field of a protocol buffer.

    Attributes:
        number: Number of the field.
        wire_type: Kind of the value: 0 a whole number, 2 bytes of a stated length.
        begin: Place of the value in the file.
        end: Place behind it, which lies behind the file where the value was cut off.
    """

    number: int
    wire_type: int
    begin: int
    end: int


def read_fields(file: BinaryIO, start: int, end: int) -> Iterator[Field]:
    """The fields in a part of a file, up to its end or to one with another kind of value."""
    place = start
    while place < end:
        file.seek(place)
        key = _read_number(file)
        begin, value = file.tell(), _read_number(file)
        if key is None or value is None:
            return
        number, wire_type = key >> 3, key & 7
        if wire_type == _WITH_LENGTH:
            begin = file.tell()
            place = begin + value
        else:
            place = file.tell()
        yield Field(number, wire_type, begin, place)
        if wire_type not in (_NUMBER, _WITH_LENGTH):
            return


def _read_number(file: BinaryIO) -> int | None:
    """A whole number in up to ten groups of 7 bits, the lowest first; None where the file ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            break
    return number
