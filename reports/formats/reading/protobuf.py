"""Protocol buffers as bytes: fields are written, and messages read, by their numbers (developers.google.com/protocol-buffers)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


def varint(value: int) -> bytes:
    """A whole number in groups of seven bits, the lowest first; a negative one as its 64-bit complement."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(field: int, value: int) -> bytes:
    """A field of type int32, int64, uint32, uint64, bool or an enumeration."""
    return varint(field << 3 | VARINT) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    """A field of type fixed64."""
    return varint(field << 3 | FIXED64) + struct.pack("<Q", value)


def double(field: int, value: float) -> bytes:
    """A field of type double."""
    return varint(field << 3 | FIXED64) + struct.pack("<d", value)


def chunk(field: int, value: bytes | str) -> bytes:
    """A field of type bytes or string, or a message in one."""
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | BYTES) + varint(len(data)) + data


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place behind it; raises ``ValueError`` where none ends within ten bytes."""
    value = shift = 0
    for place in range(at, min(at + 10, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & (1 << 64) - 1, place + 1
    raise ValueError(f"no number ends behind byte {at}")


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(field, wire type, value) in order; fixed sizes and texts as bytes; raises ``ValueError`` where it breaks off."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = read_varint(data, at)
            yield field, wire, value
            continue
        if wire == BYTES:
            size, at = read_varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"byte {at} begins a field of wire type {wire}")
        if at + size > len(data):
            raise ValueError(f"breaks off within the {size} bytes from byte {at} on")
        yield field, wire, data[at : at + size]
        at += size


def signed(value: int) -> int:
    """An int64 from its 64 bits."""
    return value - (1 << 64) if value >> 63 else value
