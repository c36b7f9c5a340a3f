"""AMF0, the value encoding of RTMP commands and metadata (Adobe, "AMF 0 Specification", 2007)."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from streamfx.media.rtmp.errors import RtmpProtocolError

_NUMBER, _BOOLEAN, _STRING, _OBJECT, _MOVIECLIP, _NULL, _UNDEFINED, _REFERENCE, _ECMA_ARRAY = range(9)
_OBJECT_END, _STRICT_ARRAY, _DATE, _LONG_STRING, _UNSUPPORTED, _RECORDSET, _XML, _TYPED_OBJECT, _AVMPLUS = range(9, 18)

_DOUBLE = struct.Struct(">d")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_DATE_BODY = struct.Struct(">dh")
_END_OF_OBJECT = b"\x00\x00\x09"
_MAX_ENCODE_DEPTH = 64


class _Undefined(enum.Enum):
    UNDEFINED = "undefined"

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = _Undefined.UNDEFINED
"""ActionScript's ``undefined``; ``None`` stands for ``null``."""


class EcmaArray(dict[str, object]):
    """An associative array (section 2.10); a ``dict`` but for how it is encoded."""


@dataclass(frozen=True, slots=True)
class AmfDate:
    """A point in time (section 2.13): milliseconds since 1970 UTC, and a time zone that should be 0."""

    milliseconds: float
    timezone: int = 0


@dataclass(frozen=True, slots=True)
class AmfLimits:
    """What a decoder accepts: nesting depth (1 is a flat object), number of values, bytes of input."""

    max_depth: int = 16
    max_values: int = 10_000
    max_bytes: int = 1 << 20


_DEFAULT_LIMITS = AmfLimits()


def decode(data: bytes, limits: AmfLimits = _DEFAULT_LIMITS) -> list[object]:
    """Decodes all values in ``data``, one after the other.

    Gives ``float``, ``bool``, ``str``, ``None``, ``UNDEFINED``, ``dict`` (objects, typed objects), ``EcmaArray``,
    ``list`` and ``AmfDate``. Of a name given twice in one object the last value counts.

    Raises:
        RtmpProtocolError: the bytes are not AMF0, end too early, hold a reference or an AVM+ (AMF3) value, or
            are over a limit. Nothing else is raised, whatever the bytes are.
    """
    decoder = Decoder(data, limits)
    values = []
    while not decoder.at_end:
        values.append(decoder.value())
    return values


class Decoder:
    """Reads values one by one; ``position`` is the offset of the next, in bytes."""

    def __init__(self, data: bytes, limits: AmfLimits = _DEFAULT_LIMITS) -> None:
        if len(data) > limits.max_bytes:
            raise RtmpProtocolError(f"an AMF0 message of {len(data)} bytes is over the limit of {limits.max_bytes}")
        self.position = 0
        self._data = data
        self._limits = limits
        self._left = limits.max_values
        self._depth = 0

    @property
    def at_end(self) -> bool:
        return self.position >= len(self._data)

    def value(self) -> object:
        """Decodes the next value; errors as in ``decode``."""
        self._left -= 1
        if self._left < 0:
            raise RtmpProtocolError(f"an AMF0 message holds more than {self._limits.max_values} values")
        marker = self._take(1)[0]
        read = _READERS.get(marker)
        if read is None:
            raise RtmpProtocolError(_REFUSED.get(marker, f"unknown AMF0 marker 0x{marker:02x}"))
        return read(self)

    def _take(self, size: int) -> bytes:
        start = self.position
        chunk = self._data[start : start + size]
        if len(chunk) < size:
            raise RtmpProtocolError("an AMF0 value ends too early")
        self.position = start + size
        return chunk

    def _text(self, size: int) -> str:
        try:
            return self._take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise RtmpProtocolError("an AMF0 string is not UTF-8") from None

    def _short_text(self) -> str:
        return self._text(_U16.unpack(self._take(2))[0])

    def _long_text(self) -> str:
        return self._text(_U32.unpack(self._take(4))[0])

    def _number(self) -> float:
        number: float = _DOUBLE.unpack(self._take(8))[0]
        return number

    def _boolean(self) -> bool:
        return self._take(1) != b"\x00"

    def _date(self) -> AmfDate:
        return AmfDate(*_DATE_BODY.unpack(self._take(10)))

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > self._limits.max_depth:
            raise RtmpProtocolError(f"AMF0 values are nested deeper than {self._limits.max_depth}")

    def _members(self, into: dict[str, object]) -> dict[str, object]:
        self._enter()
        while True:
            name = self._short_text()
            if not name and self._data[self.position : self.position + 1] == b"\x09":
                self.position += 1
                self._depth -= 1
                return into
            into[name] = self.value()

    def _object(self) -> dict[str, object]:
        return self._members({})

    def _ecma_array(self) -> dict[str, object]:
        self._take(4)  # the count is a hint (section 2.10) that many writers get wrong
        return self._members(EcmaArray())

    def _typed_object(self) -> dict[str, object]:
        self._short_text()
        return self._members({})

    def _strict_array(self) -> list[object]:
        count = _U32.unpack(self._take(4))[0]
        if count > len(self._data) - self.position:
            raise RtmpProtocolError("an AMF0 array claims more values than it has bytes")
        self._enter()
        values = [self.value() for _ in range(count)]
        self._depth -= 1
        return values


_READERS: dict[int, Callable[[Decoder], object]] = {
    _NUMBER: Decoder._number,
    _BOOLEAN: Decoder._boolean,
    _STRING: Decoder._short_text,
    _OBJECT: Decoder._object,
    _NULL: lambda _: None,
    _UNDEFINED: lambda _: UNDEFINED,
    _ECMA_ARRAY: Decoder._ecma_array,
    _STRICT_ARRAY: Decoder._strict_array,
    _DATE: Decoder._date,
    _LONG_STRING: Decoder._long_text,
    _UNSUPPORTED: lambda _: UNDEFINED,
    _XML: Decoder._long_text,
    _TYPED_OBJECT: Decoder._typed_object,
}
_REFUSED = {
    _MOVIECLIP: "AMF0 movie clips are reserved and not accepted",
    _REFERENCE: "AMF0 references are not accepted",
    _OBJECT_END: "an AMF0 object end stands outside an object",
    _RECORDSET: "AMF0 record sets are reserved and not accepted",
    _AVMPLUS: "AMF3 values are not accepted; set the encoder to AMF0",
}


def encode(*values: object) -> bytes:
    """Encodes values one after the other: the types ``decode`` gives, and ``int``, mappings and tuples as well.

    A string over 65535 bytes becomes a long string.

    Raises:
        RtmpProtocolError: AMF0 cannot hold a value.
    """
    out: list[bytes] = []
    for value in values:
        _encode(value, out, 0)
    return b"".join(out)


def _encode(value: object, out: list[bytes], depth: int) -> None:
    if depth > _MAX_ENCODE_DEPTH:
        raise RtmpProtocolError(f"values nested deeper than {_MAX_ENCODE_DEPTH} cannot be encoded")
    match value:
        case None:
            out.append(b"\x05")
        case _Undefined():
            out.append(b"\x06")
        case bool():
            out.append(b"\x01\x01" if value else b"\x01\x00")
        case int() | float():
            out.append(b"\x00" + _pack(_DOUBLE, value))
        case str():
            text = _utf8(value)
            head = b"\x02" + _U16.pack(len(text)) if len(text) <= 0xFFFF else b"\x0c" + _U32.pack(len(text))
            out.append(head + text)
        case AmfDate():
            out.append(b"\x0b" + _pack(_DATE_BODY, value.milliseconds, value.timezone))
        case EcmaArray():
            out.append(b"\x08" + _U32.pack(len(value)))
            _encode_members(value, out, depth)
        case Mapping():
            out.append(b"\x03")
            _encode_members(value, out, depth)
        case list() | tuple():
            out.append(b"\x0a" + _U32.pack(len(value)))
            for item in value:
                _encode(item, out, depth + 1)
        case _:
            raise RtmpProtocolError(f"a {type(value).__name__} cannot be encoded as AMF0")


def _encode_members(members: Mapping[str, object], out: list[bytes], depth: int) -> None:
    for name, value in members.items():
        text = _utf8(str(name))
        if len(text) > 0xFFFF:
            raise RtmpProtocolError("a name over 65535 bytes cannot be encoded as AMF0")
        out.append(_U16.pack(len(text)) + text)
        _encode(value, out, depth + 1)
    out.append(_END_OF_OBJECT)


def _pack(form: struct.Struct, *numbers: float) -> bytes:
    try:
        return form.pack(*numbers)
    except (OverflowError, struct.error):
        raise RtmpProtocolError("a number is too large for AMF0") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise RtmpProtocolError("a string with lone surrogates cannot be encoded as AMF0") from None
