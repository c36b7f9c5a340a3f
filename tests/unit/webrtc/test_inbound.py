"""A publisher's track, from packets to the door, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from aiortc.codecs import h264_depayload, vp8_depayload

from streamfx.core.clock import MonotonicClock
from streamfx.core.frames import AudioFrame, Frame, VideoFrame
from streamfx.media.door import Door
from streamfx.media.webrtc import compat, inbound
from streamfx.media.webrtc.assemble import Unit
from streamfx.media.webrtc.encode import OpusEncoder, VideoEncoder
from streamfx.media.webrtc.inbound import Decoder, Inbound
from streamfx.media.webrtc.timing import SenderTimes
from tests.unit.webrtc.clients import grey, until


class Wire:
    """Stands where aiortc's receiver is, which needs a network: counts what is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0

        async def ask(receiver: Any) -> None:
            self.asked += 1

        monkeypatch.setattr(compat, "take_over_receiver", lambda receiver, assembler, on_report: None)
        monkeypatch.setattr(compat, "ask_for_key_frame", ask)
        monkeypatch.setattr(compat, "codec_names", lambda receiver: {96: "H264"})


class Sink:
    """A door that keeps what is delivered."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def deliver(self, frame: Frame, captured: float | None = None) -> None:
        self.frames.append(frame)


def units(count: int, codec: Any = "H264") -> list[Unit]:
    encoder = VideoEncoder(codec, (320, 240), 800_000, 1, 10.0)
    made = []
    for n in range(count):
        encoded = encoder.encode(grey(50 + 5 * n), 3000 * n, n == 0, None)
        assert encoded is not None
        take = h264_depayload if codec == "H264" else vp8_depayload
        data = b"".join(take(payload) for payload in encoded.payloads)
        made.append(Unit(codec, data, 3000 * n, encoded.key, 10.0 + n / 30))
    return made


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_pictures_keep_their_times(codec: str) -> None:
    decoder = Decoder("video", SenderTimes())
    frames = [frame for unit in units(8, codec) for frame, _ in decoder.decode(unit)]
    assert len(frames) >= 7
    for n, frame in enumerate(frames):
        assert isinstance(frame, VideoFrame)
        assert frame.captured_at == pytest.approx(10 + n / 30)
        assert frame.pts - frames[0].pts == pytest.approx(n / 30)
        assert abs(float(frame.pixels.mean()) - (50 + 5 * n)) < 4
    decoder.close()


def test_garbage_is_counted_and_skipped() -> None:
    decoder = Decoder("video", SenderTimes())
    good = units(2)
    for unit in (Unit("H264", b"\x00\x00\x00\x01\x65garbage", 0, True, 1.0), Unit("AV9", b"x", 1, True, 1.0)):
        assert decoder.decode(unit) == []
    assert decoder.broken >= 1
    assert decoder.decode(good[0])


def test_sound_is_decoded() -> None:
    tone = np.tile(0.3 * np.sin(2 * np.pi * 440 * np.arange(9600) / 48_000), (2, 1)).astype(np.float32)
    decoder = Decoder("audio", SenderTimes())
    out: list[Frame] = []
    for encoded in OpusEncoder(96_000).encode(tone, 0):
        unit = Unit("opus", encoded.payloads[0], encoded.ticks, True, 5.0)
        out += [frame for frame, _ in decoder.decode(unit)]
    assert all(isinstance(frame, AudioFrame) for frame in out)
    assert sum(frame.samples.shape[1] for frame in out if isinstance(frame, AudioFrame)) >= 8000


async def test_a_decoder_that_cannot_keep_up_skips_to_a_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, sink = Wire(monkeypatch), Sink()
    track = Inbound(object(), "video", SenderTimes(), sink, MonotonicClock())  # type: ignore[arg-type]
    made = units(40)
    for unit in made:
        track._take(unit)
    assert len(track._units) <= inbound._MOST_WAITING["video"]
    assert track.stats()["dropped"] > 0
    async with asyncio.TaskGroup() as group:
        running = group.create_task(track.run())
        track._take(made[0])
        await until(lambda: len(sink.frames) > 0)
        running.cancel()
    assert wire.asked == 0


async def test_no_picture_for_half_a_second_asks_for_a_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "NO_FRAME_FOR", 0.05)
    wire = Wire(monkeypatch)
    track = Inbound(object(), "video", SenderTimes(), Sink(), MonotonicClock())  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(track.watch())
        await asyncio.sleep(0.2)
        assert wire.asked == 0  # nothing has come at all: there is nobody to ask
        track.assembler.heard_at = track.assembler.emitted_at = MonotonicClock().now()
        await until(lambda: wire.asked > 0, 2)
        watching.cancel()


async def test_a_publisher_that_was_replaced_delivers_nothing() -> None:
    door = Door()
    retired: list[str] = []
    first = door.enter("whip", retire=lambda: retired.append("first"))
    second = door.enter("rtmp")
    assert retired == ["first"]
    first.deliver(VideoFrame(grey(1), 0.0, 1.0))
    first.leave()
    assert door.visitor is second
    second.leave()
    assert door.visitor is None
