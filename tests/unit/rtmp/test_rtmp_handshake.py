"""The handshake: both sides with each other, and with peers that do not play by it."""

from __future__ import annotations

import asyncio
import os

import pytest

from streamfx.media.rtmp.errors import RtmpProtocolError
from streamfx.media.rtmp.handshake import PACKET_SIZE, check_version, client_handshake, echo, hello, server_handshake


def test_packets() -> None:
    first = hello(0x01020304)
    assert first[:9] == b"\x03\x01\x02\x03\x04\0\0\0\0"  # zeros: no digest, so clients use the simple handshake
    assert len(first) == 1 + PACKET_SIZE
    assert hello()[9:] != hello()[9:]
    assert echo(first[1:]) == first[1:]
    with pytest.raises(RtmpProtocolError, match="1536 bytes"):
        echo(b"short")


@pytest.mark.parametrize(
    ("first", "words"), [(0, "version 0"), (4, "version 4"), (6, "RTMPE"), (0x16, "TLS"), (0x47, "does not speak")]
)
def test_versions(first: int, words: str) -> None:
    check_version(3)
    with pytest.raises(RtmpProtocolError, match=words):
        check_version(first)


@pytest.mark.parametrize("c1", [bytes(1536), b"\0\0\0\1\x80\0\7\2" + os.urandom(1528)], ids=["simple", "complex"])
async def test_server_answers_both_kinds_of_clients(c1: bytes) -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server_handshake(reader, writer, within=1)
        done.set_result(None)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"\x03" + c1)
        answer = await reader.readexactly(1 + 2 * PACKET_SIZE)
        assert answer[5:9] == bytes(4)
        assert answer[1 + PACKET_SIZE :] == c1
        writer.write(answer[1 : 1 + PACKET_SIZE])
        await asyncio.wait_for(done, 2)
        writer.close()
        await writer.wait_closed()


async def test_both_sides_and_their_timeouts() -> None:
    results: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await server_handshake(reader, writer, within=0.2)
            results.put_nowait(None)
        except RtmpProtocolError as error:
            results.put_nowait(error)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        await client_handshake(reader, writer, within=1)
        assert await results.get() is None
        writer.close()
        await writer.wait_closed()
        _, writer = await asyncio.open_connection(*address)
        assert "within 0.2 s" in str(await results.get())
        writer.close()
        await writer.wait_closed()
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        await writer.wait_closed()
        assert "left during" in str(await results.get())
