"""The RTMP handshake, both sides ("Adobe's Real Time Messaging Protocol" 1.0, section 5.2).

Only the simple handshake is spoken. Clients that open with the undocumented "complex" one (a digest in C1, as
FFmpeg, librtmp and Flash do) fall back to it, because our S1 says version 0.0.0.0.
"""

from __future__ import annotations

import asyncio
import os
import struct

from streamfx.media.rtmp.errors import RtmpProtocolError

VERSION = 3
PACKET_SIZE = 1536
"""Bytes in each of C1, S1, C2 and S2."""

_HEAD = struct.Struct(">II")


def check_version(first: int) -> None:
    """Checks C0 or S0, the first byte a peer sends.

    Raises:
        RtmpProtocolError: it is not 3, plain RTMP.
    """
    if first == VERSION:
        return
    if first in (0x14, 0x15, 0x16, 0x80):
        raise RtmpProtocolError("the peer speaks TLS to a plain RTMP port; use rtmp://, or a port with a certificate")
    if first in (6, 8, 9):
        raise RtmpProtocolError("the peer wants encrypted RTMPE, which is not supported; use rtmp:// or rtmps://")
    if first >= 0x20:
        raise RtmpProtocolError("the peer does not speak RTMP")
    raise RtmpProtocolError(f"the peer speaks RTMP version {first}; only version 3 is supported")


def hello(timestamp_ms: int = 0) -> bytes:
    """Makes C0 and C1, or S0 and S1: the version, a time in milliseconds, four zero bytes, random bytes."""
    return bytes((VERSION,)) + _HEAD.pack(timestamp_ms & 0xFFFFFFFF, 0) + os.urandom(PACKET_SIZE - _HEAD.size)


def echo(packet: bytes) -> bytes:
    """Makes S2 from C1, or C2 from S1.

    Bytes 4 to 7 could say when the packet was read (section 5.2.4). The echo is exact instead: clients that put a
    digest into C1 compare all of it, and no known peer reads that time.

    Raises:
        RtmpProtocolError: the packet has not the 1536 bytes it must have.
    """
    if len(packet) != PACKET_SIZE:
        raise RtmpProtocolError(f"a handshake packet has {PACKET_SIZE} bytes, not {len(packet)}")
    return packet


async def server_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, within: float) -> None:
    """Answers a client's handshake within ``within`` seconds.

    Raises:
        RtmpProtocolError: not RTMP, or the client left or fell silent on the way.
    """
    try:
        async with asyncio.timeout(within):
            check_version((await reader.readexactly(1))[0])
            c1 = await reader.readexactly(PACKET_SIZE)
            writer.write(hello() + echo(c1))
            await writer.drain()
            # What C2 holds is not compared: widely used clients send their own idea of an echo.
            await reader.readexactly(PACKET_SIZE)
    except asyncio.IncompleteReadError:
        raise RtmpProtocolError("the client left during the handshake") from None
    except TimeoutError:
        raise RtmpProtocolError(f"the client did not finish the handshake within {within:g} s") from None


async def client_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, within: float) -> None:
    """Shakes hands with a server within ``within`` seconds.

    Raises:
        RtmpProtocolError: not RTMP, or the server left or fell silent on the way.
    """
    try:
        async with asyncio.timeout(within):
            writer.write(hello())
            await writer.drain()
            check_version((await reader.readexactly(1))[0])
            s1 = await reader.readexactly(PACKET_SIZE)
            await reader.readexactly(PACKET_SIZE)
            writer.write(echo(s1))
            await writer.drain()
    except asyncio.IncompleteReadError:
        raise RtmpProtocolError("the server left during the handshake") from None
    except TimeoutError:
        raise RtmpProtocolError(f"the server did not answer the handshake within {within:g} s") from None
