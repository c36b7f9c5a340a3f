"""The server over loopback, within one process: who is let in, who is not, and that nothing lasts."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import struct
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamfx.core.clock import FakeClock
from streamfx.core.errors import SinkError, SourceError, UsageError
from streamfx.media.rtmp import amf0, chunks
from streamfx.media.rtmp.chunks import Message
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.handshake import hello
from streamfx.media.rtmp.server import Publisher, RtmpLimits, RtmpServer

pytestmark = pytest.mark.usefixtures("no_leaks")

Dial = Callable[[int], Awaitable[Any]]
FAST = RtmpLimits(
    handshake_timeout=0.5,
    publish_timeout=1.0,
    idle_timeout=0.5,
    refusal_delay=0.05,
    takeover_timeout=0.2,
    close_timeout=0.3,
)


class Recorder:
    """A handler that keeps every tag."""

    def __init__(self) -> None:
        self.tags: list[FlvTag] = []
        self.publishers: list[Publisher] = []
        self.done = asyncio.Event()

    async def __call__(self, publisher: Publisher) -> None:
        self.publishers.append(publisher)
        try:
            async for tag in publisher.tags():
                self.tags.append(tag)
        finally:
            self.done.set()

    async def finished(self) -> Publisher:
        async with asyncio.timeout(3):
            await self.done.wait()
        return self.publishers[-1]


async def test_tags_arrive_with_metadata_and_times(dial: Dial) -> None:
    handler, clock = Recorder(), FakeClock(7.0)
    async with RtmpServer(port=0, limits=FAST, clock=clock) as server:
        server.add_route("live", "key", handler)
        peer = await dial(server.port)
        assert await peer.publish() == "NetStream.Publish.Start"
        metadata = amf0.EcmaArray(width=640.0)
        peer.send(chunks.DATA_AMF0, amf0.encode("@setDataFrame", "onMetaData", metadata))
        peer.send(chunks.VIDEO, b"\x17\x00video", 0xFFFFFFF0, csid=6)
        peer.send(chunks.AUDIO, b"\xaf\x01audio", 0x10, csid=5)
        peer.command("deleteStream", None, 1.0)
        publisher = await handler.finished()
    assert [(t.kind, t.timestamp_ms, t.received_at) for t in handler.tags] == [
        ("data", 0, 7.0),
        ("video", -16, 7.0),
        ("audio", 16, 7.0),
    ]
    assert handler.tags[0].body == amf0.encode("onMetaData", metadata)
    assert publisher.metadata == {"width": 640.0}
    assert publisher.ended == "unpublished"
    assert publisher.app == "live"
    assert publisher.peer.startswith("127.0.0.1:")
    assert publisher.bytes_received > 100


@pytest.mark.parametrize(
    ("app", "name"),
    [("live/eu", "key"), ("live", "eu/key"), ("/live/eu/", "key"), ("live/eu?x=1", "key?token=2"), ("live/eu", "key?")],
)
async def test_ways_to_cut_the_same_url(dial: Dial, app: str, name: str) -> None:
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live/eu", "key", Recorder())
        assert await (await dial(server.port)).publish(app, name) == "NetStream.Publish.Start"


async def test_a_query_in_the_key_must_match(dial: Dial) -> None:
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key?token=1", Recorder())
        assert await (await dial(server.port)).publish("live", "key?token=1") == "NetStream.Publish.Start"
        assert await (await dial(server.port)).publish("live", "key") == "NetStream.Publish.BadName"


async def test_wrong_key_and_unknown_application_look_the_same(dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers = []
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "sesame-key", Recorder())
        for app, name in [("live", "wrong-key"), ("nowhere", "sesame-key"), ("live", ""), ("live", "sesame-key/")]:
            peer = await dial(server.port)
            await peer.connect(app)
            peer.command("publish", None, name, "live", transaction=5, stream_id=1)
            before = asyncio.get_running_loop().time()
            answers.append((await peer.until("onStatus"))[3])
            assert asyncio.get_running_loop().time() - before >= 0.04
            assert await peer.closed()
        repr(server._routes)
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["code"] == "NetStream.Publish.BadName"
    assert answers[0]["level"] == "error"
    assert "key" not in caplog.text.replace("stream key", "")


async def test_takeover_ends_the_old_and_lets_the_new_in(dial: Dial) -> None:
    order: list[str] = []

    async def handler(publisher: Publisher) -> None:
        order.append("begin")
        async for _ in publisher.tags():
            pass
        order.append(publisher.ended or "")

    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", handler)
        old, new = await dial(server.port), await dial(server.port)
        assert await old.publish() == "NetStream.Publish.Start"
        assert await new.publish() == "NetStream.Publish.Start"
        assert await old.status() == "NetStream.Publish.BadName"
        assert await old.closed()
        assert order == ["begin", "another publisher took this stream over", "begin"]


async def test_takeover_cancels_a_handler_that_hangs(dial: Dial) -> None:
    async def handler(_: Publisher) -> None:
        await asyncio.Event().wait()

    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", handler)
        await (await dial(server.port)).publish()
        assert await (await dial(server.port)).publish() == "NetStream.Publish.Start"


async def test_a_reset_connection_ends_the_tags(dial: Dial) -> None:
    handler = Recorder()
    async with RtmpServer(port=0) as server:
        server.add_route("live", "key", handler)
        peer = await dial(server.port)
        await peer.publish()
        peer.writer.get_extra_info("socket").setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: reset
        peer.writer.transport.abort()
        assert (await handler.finished()).ended in ("disconnected", "connection lost")


async def test_silence_and_broken_protocol_end_the_tags(dial: Dial) -> None:
    silent, broken = Recorder(), Recorder()
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "a", silent)
        server.add_route("live", "b", broken)
        peer = await dial(server.port)
        await peer.publish("live", "a")
        assert (await silent.finished()).ended == "silent for 0.5 s"
        assert await peer.closed()
        peer = await dial(server.port)
        await peer.publish("live", "b")
        peer.writer.write(b"\xc5" * 100)
        assert "never began" in ((await broken.finished()).ended or "")
        assert await peer.closed()


async def test_a_handler_that_fails_is_told_to_the_publisher(dial: Dial) -> None:
    async def fails(_: Publisher) -> None:
        raise SinkError("no room")

    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", fails)
        peer = await dial(server.port)
        await peer.publish()
        assert await peer.status() == "NetStream.Publish.Failed"
        assert await peer.closed()


async def test_play_is_refused(dial: Dial) -> None:
    async with RtmpServer(port=0, limits=FAST) as server:
        peer = await dial(server.port)
        await peer.connect()
        peer.command("play", None, "key", transaction=2, stream_id=1)
        assert await peer.status() == "NetStream.Play.Failed"
        assert await peer.closed()


async def test_enhanced_rtmp_is_answered(dial: Dial) -> None:
    async with RtmpServer(port=0, limits=FAST) as server:
        peer = await dial(server.port)
        answer = await peer.connect(fourCcList=["hvc1", "xxxx", "av01"], videoFourCcInfoMap={"*": 7.0})
        properties: Any = answer[2]
        assert properties["fourCcList"] == ["hvc1", "av01"]
        assert set(properties["videoFourCcInfoMap"]) >= {"avc1", "hvc1", "av01", "vp09"}


async def test_pings_and_windows_are_acknowledged(dial: Dial) -> None:
    handler = Recorder()
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", handler)
        peer = await dial(server.port)
        await peer.publish()
        peer.send(chunks.WINDOW_ACK_SIZE, struct.pack(">I", 5000), stream_id=0, csid=2)
        peer.send(chunks.USER_CONTROL, struct.pack(">HI", 6, 1234), stream_id=0, csid=2)
        answer: Message = await peer.receive()
        assert (answer.type_id, answer.payload) == (chunks.USER_CONTROL, struct.pack(">HI", 7, 1234))
        peer.send(chunks.VIDEO, bytes(10_000))
        answer = await peer.receive()
        assert answer.type_id == chunks.ACKNOWLEDGEMENT


async def test_aggregates_are_taken_apart(dial: Dial) -> None:
    def tag(kind: int, timestamp: int, body: bytes) -> bytes:
        head = bytes((kind,)) + len(body).to_bytes(3, "big") + timestamp.to_bytes(3, "big") + bytes(4)
        return head + body + struct.pack(">I", 11 + len(body))

    handler = Recorder()
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", handler)
        peer = await dial(server.port)
        await peer.publish()
        peer.send(chunks.AGGREGATE, tag(9, 500, b"v") + tag(8, 520, b"a"), 1000)
        peer.send(chunks.AGGREGATE, tag(9, 500, b"v")[:-6], 2000)
        publisher = await handler.finished()
    assert [(t.kind, t.timestamp_ms, t.body) for t in handler.tags] == [("video", 1000, b"v"), ("audio", 1020, b"a")]
    assert "cut off" in (publisher.ended or "")


async def test_removing_a_route_ends_its_publisher(dial: Dial) -> None:
    handler = Recorder()
    async with RtmpServer(port=0, limits=FAST) as server:
        remove = server.add_route("live", "key", handler)
        with pytest.raises(UsageError, match="already in use"):
            server.add_route("/live/", "key", handler)
        peer = await dial(server.port)
        await peer.publish()
        remove()
        remove()
        await handler.finished()
        assert await peer.status() == "NetStream.Unpublish.Success"
        server.add_route("live", "key", handler)


@pytest.mark.parametrize(("app", "key"), [("", "key"), ("/", "key"), ("live", "")])
async def test_empty_routes_are_refused(app: str, key: str) -> None:
    with pytest.raises(UsageError, match="needs an application"):
        RtmpServer().add_route(app, key, Recorder())


async def test_closing_ends_publishers_and_cancels_the_stubborn(dial: Dial) -> None:
    polite, cancelled = Recorder(), asyncio.Event()

    async def stubborn(_: Publisher) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "a", polite)
        server.add_route("live", "b", stubborn)
        await (await dial(server.port)).publish("live", "a")
        await (await dial(server.port)).publish("live", "b")
        await dial(server.port)  # one that says nothing
        await asyncio.sleep(0.02)
    assert polite.publishers[0].ended == "the server closes"
    assert cancelled.is_set()


async def test_slow_consumers_slow_the_publisher_down(dial: Dial) -> None:
    go = asyncio.Event()
    seen = 0

    async def slow(publisher: Publisher) -> None:
        nonlocal seen
        await go.wait()
        async for _ in publisher.tags():
            seen += 1

    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", slow)
        peer = await dial(server.port)
        await peer.publish()
        peer.writer.write(peer.chunk_writer.set_chunk_size(1 << 20))
        tag = peer.chunk_writer.write(Message(chunks.VIDEO, 1, 0, bytes(1 << 20), 6))
        for sent in range(64):  # noqa: B007
            peer.writer.write(tag)
            try:
                async with asyncio.timeout(0.2):
                    await peer.writer.drain()
            except TimeoutError:
                break
        assert sent < 40
        go.set()
        async with asyncio.timeout(3):
            await peer.writer.drain()
            while seen < sent:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_too_many_connections_are_closed_at_once(dial: Dial) -> None:
    limits = RtmpLimits(max_connections=3, max_unauthenticated=2)
    async with RtmpServer(port=0, limits=limits) as server:
        server.add_route("live", "key", Recorder())
        await (await dial(server.port)).publish()
        await dial(server.port)
        await dial(server.port)
        assert await (await dial(server.port)).closed()


async def test_port_in_use_and_bad_host() -> None:
    async with RtmpServer(port=0) as server:
        with pytest.raises(SourceError, match=f"port {server.port} is already in use; "):
            async with RtmpServer(port=server.port):
                pass
    with pytest.raises(SourceError, match="cannot listen on"):
        async with RtmpServer("192.0.2.1", 0):
            pass


@pytest.mark.parametrize("size", [0, 1, 2, 1536, 1537, 1538, 3072])
async def test_truncated_handshakes(dial: Dial, size: int) -> None:
    async with RtmpServer(port=0, limits=FAST) as server:
        peer = await dial(server.port)
        peer.writer.write((hello() + bytes(1536))[:size])
        peer.writer.write_eof()
        assert await asyncio.wait_for(peer.reader.read(), 3) in (b"",) or size >= 1537
        silent = await dial(server.port)
        silent.writer.write((hello() + bytes(1536))[:size])
        await asyncio.wait_for(silent.reader.read(), 3)  # the handshake timeout closes it


@pytest.mark.parametrize("first", [0, 2, 6, 0x16, 0x47, 0xFF])
async def test_other_protocols_are_dropped(dial: Dial, first: int) -> None:
    async with RtmpServer(port=0, limits=FAST) as server:
        peer = await dial(server.port)
        peer.writer.write(bytes([first]) * 1537)
        assert await peer.closed()


BAD = {
    "publish first": lambda p: p.command("publish", None, "key", "live"),
    "huge message": lambda p: p.writer.write(b"\x03\0\0\0\xff\xff\xff\x14\0\0\0\0"),
    "chunk size 0": lambda p: p.send(chunks.SET_CHUNK_SIZE, bytes(4), csid=2),
    "deep nesting": lambda p: p.send(chunks.COMMAND_AMF0, b"\x03\x00\x01a" * 9000, csid=3),
    "not a command": lambda p: p.send(chunks.COMMAND_AMF0, amf0.encode(1, 2), csid=3),
    "empty command": lambda p: p.send(chunks.COMMAND_AMF0, b"", csid=3),
    "amf3": lambda p: p.send(chunks.COMMAND_AMF3, b"\x00\x11\x01", csid=3),
    "two connects": lambda p: [p.command("connect", {}), p.command("connect", {})],
    "many csids": lambda p: [p.send(chunks.AUDIO, b"x", csid=csid) for csid in range(3, 80)],
}


@pytest.mark.parametrize("bad", BAD)
async def test_bad_clients_are_dropped_and_the_server_lives(dial: Dial, bad: str) -> None:
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", Recorder())
        peer = await dial(server.port)
        if bad == "publish first":
            await asyncio.wait_for(peer.publish("nowhere"), 3)
        else:
            await peer.connect()
        BAD[bad](peer)
        assert await peer.closed()
        assert await (await dial(server.port)).publish() == "NetStream.Publish.Start"


async def garbage(dial: Dial, port: int, rng: random.Random, stage: int) -> None:
    peer = await dial(port)
    try:
        if stage == 1:
            await peer.connect()
        elif stage == 2:
            await peer.publish("live", str(rng.random()))
        elif stage == 3:
            await peer.publish("live", "key")
        peer.writer.write(rng.randbytes(rng.randrange(1, 5000)))
        if rng.random() < 0.5:
            peer.writer.write_eof()
        await peer.reader.read(10_000)
    except (ConnectionError, AssertionError):
        pass
    peer.writer.transport.abort()


async def test_random_bytes_at_every_stage(dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    rng = random.Random(os.environ.get("RTMP_SEED", "1"))
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", Recorder())
        for _ in range(3):
            await asyncio.gather(*(garbage(dial, server.port, rng, stage % 3) for stage in range(40)))
            await garbage(dial, server.port, rng, 3)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            await asyncio.gather(*(garbage(dial, server.port, rng, stage % 3) for stage in range(40)))
        while server._unauthenticated:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert await (await dial(server.port)).publish() == "NetStream.Publish.Start"
    assert not caplog.records
    assert grown < 3_000_000  # the test's own closed peers


def session(name: str) -> bytes:
    """All that a publisher sends, without waiting for any answer."""
    writer = chunks.ChunkWriter()

    def command(*values: object, stream_id: int = 0) -> bytes:
        return writer.write(Message(chunks.COMMAND_AMF0, stream_id, 0, amf0.encode(*values), 3))

    parts = [
        hello() + bytes(1536),
        command("connect", 1, {"app": "live", "fourCcList": ["hvc1"], "objectEncoding": 0}),
        writer.set_chunk_size(4096),
        command("releaseStream", 2, None, name),
        command("FCPublish", 3, None, name),
        command("createStream", 4, None),
        command("publish", 5, None, name, "live", stream_id=1),
        writer.write(
            Message(chunks.DATA_AMF0, 1, 0, amf0.encode("@setDataFrame", "onMetaData", amf0.EcmaArray(width=1.0)), 4)
        ),
        *(writer.write(Message(chunks.VIDEO, 1, 40 * i, b"\x27\x01\0\0\0" + bytes(900), 6)) for i in range(10)),
        *(writer.write(Message(chunks.AUDIO, 1, 21 * i, b"\xaf\x01" + bytes(200), 5)) for i in range(10)),
        command("FCUnpublish", 6, None, name),
    ]
    return b"".join(parts)


async def test_a_client_that_waits_for_nothing(dial: Dial) -> None:
    handler = Recorder()
    async with RtmpServer(port=0, limits=FAST) as server:
        server.add_route("live", "key", handler)
        peer = await dial(server.port)
        peer.writer.write(session("key"))
        assert (await handler.finished()).ended == "unpublished"
    assert [tag.kind for tag in handler.tags] == ["data"] + ["video"] * 10 + ["audio"] * 10


async def test_damaged_sessions(dial: Dial, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    rng = random.Random(os.environ.get("RTMP_SEED", "1"))

    async def one(port: int, name: str) -> None:
        data = bytearray(session(name))
        commands = 3073 + 450
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(3073, rng.choice([commands, len(data)]))] = rng.randrange(256)
        peer = await dial(port)
        peer.writer.write(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        assert await peer.closed()

    async with RtmpServer(port=0, limits=FAST) as server:
        for index in range(60):
            server.add_route("live", f"key{index}", Recorder())
        await asyncio.gather(*(one(server.port, f"key{index}") for index in range(60)))
        assert await (await dial(server.port)).publish("live", "key0") == "NetStream.Publish.Start"
        assert len(server._publishing) == 1
    assert not caplog.records
