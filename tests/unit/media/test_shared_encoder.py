"""One encoder for many: encoded once, key frames for who joins, and what becomes of it when it dies, hangs or fails."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from streamfx.core.backoff import Backoff
from streamfx.core.errors import SinkError
from streamfx.ipc.child import spawn
from streamfx.media import hardware, shared_encoder
from streamfx.media.base import EncodeSettings, OutputFormat, Shared, SinkState, make_sink
from streamfx.media.encoders import AUTO
from streamfx.media.hardware import ENCODERS, Faults
from streamfx.media.packets import Packet, PacketQueue
from streamfx.media.sender_process import Sender
from streamfx.media.shared_encoder import SharedEncoder
from streamfx.media.target import Target
from streamfx.media.url import MediaUrl
from tests.support import Clip, ramp

SIZE = (160, 96)
FPS = 25


def format_of(encoder: str = "software", **more: object) -> OutputFormat:
    settings = EncodeSettings(encoder=encoder, gop_seconds=10, preset="ultrafast")  # type: ignore[arg-type]
    return replace(OutputFormat(SIZE, Fraction(FPS), True, True, settings), **more)  # type: ignore[arg-type]


class Listener:
    """Takes packets as a target does, and notes what else it is told."""

    def __init__(self) -> None:
        self.queue = PacketQueue()
        self.packets: list[Packet] = []
        self.told: list[str] = []

    def take(self, packet: Packet) -> None:
        self.queue.put(packet)
        while (ready := self.queue.pop()) is not None:
            self.packets.append(ready)

    def cut(self, lost: int) -> None:
        self.queue.cut()
        self.told.append("cut")

    def resume(self, headers: bytes) -> None:
        self.told.append("resume")

    @property
    def pictures(self) -> list[Packet]:
        return [packet for packet in self.packets if packet.video]

    def decoded(self, headers: bytes) -> int:
        """How many pictures a decoder makes of it; it raises what it finds wrong."""
        decoder = av.CodecContext.create("h264", "r")
        decoder.options = {"err_detect": "explode"}
        with av.open(io.BytesIO(headers)) as container:
            decoder.extradata = container.streams.video[0].codec_context.extradata
        packets = [av.Packet(packet.data) for packet in self.pictures]
        return sum(len(decoder.decode(packet)) for packet in [*packets, None])


@contextlib.asynccontextmanager
async def encoding(output: OutputFormat) -> AsyncIterator[SharedEncoder]:
    async with shared_encoder.shared_encoder(output) as encoder, asyncio.timeout(15):
        yield encoder


class Stream:
    """Pictures and sound, to an encoder."""

    def __init__(self, encoder: SharedEncoder) -> None:
        self.encoder = encoder
        self.next = 0

    async def send(self, count: int) -> None:
        for _ in range(count):
            await self.encoder.room()
            self.encoder.write_video(ramp(SIZE, self.next), self.next / FPS)
            self.encoder.write_audio(np.zeros((2, 1920), np.float32), self.next * 1920)
            self.next += 1
        await self.encoder.settle()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that died is started again at once."""
    monkeypatch.setattr(shared_encoder, "Backoff", lambda first, longest: Backoff(0.1, 0.1))


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_encoded_once_for_all() -> None:
    """Each hands over every picture; one key frame for who joins, and none for who asks right after."""
    async with encoding(format_of()) as encoder:
        headers = await encoder.open()
        first, second, third = Listener(), Listener(), Listener()
        stream = Stream(encoder)
        encoder.attach(first)
        await stream.send(20)
        assert encoder.write_video(ramp(SIZE, 19), 19 / FPS), "it has this picture already"
        encoder.attach(second)
        await stream.send(20)
        encoder.attach(third)
        await stream.send(60)
        encoder.detach(second)
        await stream.send(5)
    assert len(first.pictures) == 105
    assert [n for n, packet in enumerate(first.pictures) if packet.key] == [0, 20, 70], "2 s apart, at least"
    assert [packet.data for packet in second.pictures] == [packet.data for packet in first.pictures[20:100]]
    assert [packet.data for packet in third.pictures] == [packet.data for packet in first.pictures[70:]]
    assert third.pictures[0].pts == 0
    for listener in (first, second, third):
        assert listener.decoded(headers) == len(listener.pictures)
        assert any(not packet.video for packet in listener.packets)


async def test_another_takes_over_when_it_dies() -> None:
    """The headers are the same, so those who are sent to need not notice more than a gap."""
    async with encoding(format_of()) as encoder:
        headers = await encoder.open()
        listener, stream = Listener(), Stream(encoder)
        encoder.attach(listener)
        await stream.send(10)
        assert encoder.pid
        os.kill(encoder.pid, signal.SIGKILL)
        await until(lambda: listener.told == ["cut"])
        assert "stopped" in encoder.error
        assert not encoder.write_video(ramp(SIZE, 0), stream.next / FPS), "nobody is there to take it"
        assert await encoder.open() == headers
        await stream.send(10)
        assert listener.told == ["cut", "resume"]
    assert len(listener.pictures) >= 19
    assert [n for n, packet in enumerate(listener.pictures) if packet.key] == [0, 10]
    assert listener.decoded(headers) == len(listener.pictures)


async def test_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_encoder, "_STALL_TIMEOUT", 0.4)
    async with encoding(format_of()) as encoder:
        await encoder.open()
        listener, stream = Listener(), Stream(encoder)
        encoder.attach(listener)
        await stream.send(5)
        await asyncio.sleep(0.5)
        assert listener.told == [], "nothing to do is no hang"
        assert encoder.pid
        os.kill(encoder.pid, signal.SIGSTOP)
        encoder.write_video(ramp(SIZE, 5), 5 / FPS)
        await until(lambda: listener.told == ["cut"])
        assert "did not answer" in encoder.error


@pytest.fixture
def said_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking has found NVENC to work; what plays it fails in the way that the test says."""
    found = Faults({codec: "" if codec == "h264_nvenc" else "no" for codec in ENCODERS}, {})
    monkeypatch.setattr(hardware, "_found", [found])
    monkeypatch.setattr(shared_encoder, "spawn", lambda module, name: spawn("tests.unit.media.failing_encoder", name))


@pytest.mark.usefixtures("said_to_work")
async def test_hardware_that_crashes_is_given_up_for_software(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILING_WAY", "crash")
    async with encoding(format_of(AUTO)) as encoder:
        await encoder.open()
        assert encoder.codec == "h264_nvenc"
        listener, stream = Listener(), Stream(encoder)
        encoder.attach(listener)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await stream.send(40)
        await until(lambda: listener.told == ["cut", "resume"])
        await stream.send(5)
        assert (encoder.codec, encoder.failures, encoder.failed) == ("libx264", 1, False)
        assert len(listener.pictures) >= 5


@pytest.mark.usefixtures("said_to_work")
async def test_named_hardware_that_never_worked_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILING_WAY", "error")
    async with encoding(format_of("nvenc")) as encoder:
        await encoder.open()
        encoder.attach(Listener())
        encoder.write_video(ramp(SIZE, 0), 0.0)
        await until(lambda: encoder.failed)
        with pytest.raises(SinkError, match="encoder nvenc does not work here"):
            await encoder.open()


async def test_targets_of_equal_formats_share() -> None:
    """Nobody is there to connect to: each tries again by itself, and tells no secret of its own or of another."""
    encoders = Shared()
    formats = [format_of(), format_of(), format_of(fps=Fraction(30))]
    sinks = [
        make_sink(MediaUrl.parse(f"rtmp://127.0.0.1:9/live/secret-{n}"), output, encoders)
        for n, output in enumerate(formats)
    ]
    targets = [sink for sink in sinks if isinstance(sink, Target)]
    async with asyncio.TaskGroup() as group, asyncio.timeout(15):
        for target in targets:
            group.create_task(target.run())
        await until(lambda: all(target.state is SinkState.RETRYING for target in targets))
        found = [target._encoder for target in targets]
        assert found[0] is found[1] is not found[2]
        for target in targets:
            assert target.error
            assert "secret" not in target.error + target.name
            await target.finish(1.0)
    assert all(target.state is SinkState.CLOSED for target in targets)
    assert all(encoder is not None and encoder.pid is None for encoder in found), "closed after the last"


def test_sender_tells_the_muxer_everything(tmp_path: Path) -> None:
    """Whatever characters an address or an option holds."""
    place = tmp_path / r"it's [a]|b\c:d.mp4"
    blob = Clip(frames=3).write(tmp_path / "headers.nut").read_bytes()
    sender = Sender(str(place), "mp4", {"brand": r"a:]'", "movflags": "empty_moov"}, blob, Fraction(25), 1_000_000)
    sender.close()
    assert place.read_bytes()[8:12] == rb"a:]'"
