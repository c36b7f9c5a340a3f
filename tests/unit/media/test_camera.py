"""Cameras and microphones. FFmpeg's test picture and tone, in real time, stand in at the one point where a device is
opened: there is nothing to plug in here."""

from __future__ import annotations

import asyncio
import errno
import itertools
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamfx.core.clock import MonotonicClock
from streamfx.core.errors import SourceError, StreamFXError, UsageError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Frame, VideoFrame
from streamfx.core.playout import GatePolicy
from streamfx.media import camera, capture, devices
from streamfx.media.base import MediaInfo, SourceRequest, open_source
from streamfx.media.camera import Wanted, choose, target_of
from streamfx.media.capture import CaptureTimes, Inbox, Recorder, SoundTimes, Target, find_alsa
from streamfx.media.devices import Device
from streamfx.media.url import MediaUrl
from streamfx.media.v4l2 import Mode
from streamfx.pipeline.session import Session
from streamfx.pipeline.settings import SessionSettings
from streamfx.server.settings import SessionConfig, source_from_outside
from tests.unit.pipeline.test_live_changes import Screen, until

CAMERA = Device("camera", "Test Camera", "/dev/video0", "camera:///dev/video0", bus="usb-1")
SPARE = Device("camera", "Spare", "/dev/video2", "camera:///dev/video2", bus="usb-2")
MICROPHONE = Device("microphone", "Test Mic", "plughw:CARD=T,DEV=0", "microphone://?name=plughw:CARD=T,DEV=0")
PICTURES = "testsrc=size=64x48:rate=50,realtime"
LARGER = "testsrc=size=128x96:rate=50,realtime"
TONE = "sine=frequency=440:sample_rate=16000:samples_per_frame=160,arealtime"


class FakeContainer:
    """What FFmpeg opened for a device, until that is unplugged."""

    def __init__(self, graph: str, plugged: threading.Event) -> None:
        self._inner = av.open(graph, format="lavfi")
        self._plugged = plugged
        self.streams = self._inner.streams

    def __enter__(self) -> FakeContainer:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def demux(self, stream: Any) -> Iterator[Any]:
        for packet in self._inner.demux(stream):
            if not self._plugged.is_set():
                raise av.OSError(errno.ENODEV, "No such device", "/dev/video0")
            yield packet


@dataclass
class FakeDevices:
    """What is plugged in; ``graphs``: FFmpeg's filters that stand for each place. ``faults``: why one does not open."""

    graphs: dict[str, str] = field(default_factory=lambda: {"/dev/video0": PICTURES, "plughw:CARD=T,DEV=0": TONE})
    faults: dict[str, int] = field(default_factory=dict)
    opened: list[Target] = field(default_factory=list)
    plugged: threading.Event = field(default_factory=threading.Event)

    def open(self, target: Target) -> FakeContainer:
        self.opened.append(target)
        if target.place in self.faults:
            raise av.OSError(self.faults[target.place], "Device or resource busy", target.place)
        return FakeContainer(self.graphs[target.place], self.plugged)

    def cameras(self) -> list[Device]:
        return [CAMERA, SPARE] if self.plugged.is_set() else [SPARE]


@pytest.fixture
def plugs(monkeypatch: pytest.MonkeyPatch) -> FakeDevices:
    fake = FakeDevices()
    fake.plugged.set()
    monkeypatch.setattr(capture, "open_device", fake.open)
    monkeypatch.setattr(devices, "cameras", lambda root=None: fake.cameras())
    monkeypatch.setattr(devices, "microphones", lambda root=None: [MICROPHONE])
    monkeypatch.setattr(camera, "find_alsa", lambda: None)
    monkeypatch.setenv("ALSA_CONFIG_DIR", "")
    return fake


def request(states: list[str] | None = None, **more: Any) -> SourceRequest:
    tell = states.append if states is not None else lambda text: None
    return SourceRequest(clock=MonotonicClock(), on_state=tell, **more)


async def read(url: str, enough: Callable[[list[Frame]], bool], **more: Any) -> tuple[MediaInfo, list[Frame]]:
    taken: list[Frame] = []
    async with asyncio.timeout(15), open_source(MediaUrl.parse(url), request(**more)) as source:
        async for frame in source.frames():
            taken.append(frame)
            if enough(taken):
                return source.info, taken
    raise AssertionError("the source ended")


def of(kind: type, frames: list[Frame]) -> list[Any]:
    return [frame for frame in frames if isinstance(frame, kind)]


# --- what comes


async def test_a_camera_gives_pictures_in_the_sessions_time(plugs: FakeDevices) -> None:
    info, frames = await read("camera://0", lambda taken: len(taken) == 10)
    assert (info.size, info.fps, info.audio, info.live, info.video) == ((64, 48), Fraction(50), False, True, True)
    assert [frame.sequence for frame in of(VideoFrame, frames)] == list(range(10))
    for frame in frames:
        assert -1.0 < frame.pts - frame.captured_at <= 0
        assert time.monotonic() - frame.captured_at < 5
    assert all(after.pts > before.pts for before, after in itertools.pairwise(frames))
    assert frames[-1].pts - frames[0].pts > 9 / 50 - 0.1, "in the time that they took"


async def test_a_camera_with_a_microphone(plugs: FakeDevices) -> None:
    def enough(taken: list[Frame]) -> bool:
        return len(of(VideoFrame, taken)) > 10 and len(of(AudioFrame, taken)) > 10

    info, frames = await read("camera:///dev/video0?mic=Test%20Mic", enough)
    assert info.audio
    sound = of(AudioFrame, frames)
    assert sound[-1].pts - sound[0].pts == pytest.approx(sum(run.duration for run in sound[:-1]), abs=0.3)
    assert {target.format for target in plugs.opened} == {"v4l2", "alsa"}
    assert abs(sound[-1].pts - of(VideoFrame, frames)[-1].pts) < 1.0, "of one time"


async def test_a_microphone_alone(plugs: FakeDevices) -> None:
    info, frames = await read("microphone://?name=Test%20Mic", lambda taken: len(taken) > 20, sound_will_do=True)
    assert info == MediaInfo.of_sound(live=True)
    sound = of(AudioFrame, frames)
    assert len(sound) == len(frames)
    assert sum(frame.samples.shape[1] for frame in sound) == pytest.approx(len(sound) * 0.01 * AUDIO_RATE, rel=0.1)


async def test_the_session_may_ask_for_another_size(plugs: FakeDevices) -> None:
    info, frames = await read("camera://0", lambda taken: len(taken) > 1, size=(32, 32))
    assert info.size == frames[0].size == (32, 32)


# --- unplugged, and back


async def test_an_unplugged_camera_comes_back_at_another_place_and_size(plugs: FakeDevices) -> None:
    states: list[str] = []
    frames: list[VideoFrame] = []
    async with asyncio.timeout(15), open_source(MediaUrl.parse("camera://0"), request(states)) as source:
        stream: AsyncIterator[Frame] = source.frames()
        async for frame in stream:
            frames += of(VideoFrame, [frame])
            if len(frames) == 5:
                plugs.graphs["/dev/video0"] = LARGER
                plugs.plugged.clear()
                asyncio.get_running_loop().call_later(0.3, plugs.plugged.set)
            if len(frames) > 12 and len(plugs.opened) > 1:
                break
        stats = source.stats()
    gap = max(after.pts - before.pts for before, after in itertools.pairwise(frames))
    assert gap > 0.25
    assert {frame.size for frame in frames} == {(64, 48)}, "the stream keeps its size"
    assert [frame.sequence for frame in frames] == list(range(len(frames)))
    assert stats["device_lost"] == 1
    assert [state.partition(" (")[0] for state in states] == [
        "capturing camera Test Camera", "camera Test Camera", "capturing camera Test Camera"
    ]  # fmt: skip
    assert "is gone (" in states[1]
    assert "no such device" in states[1]
    assert [target.place for target in plugs.opened] == ["/dev/video0"] * 2, "never another camera"


async def test_meanwhile_the_stream_holds_its_picture_and_then_the_slate(plugs: FakeDevices) -> None:
    screen = Screen()
    gate = GatePolicy(hold=0.1, slate_after=0.2)
    session = Session(SessionSettings(MediaUrl.parse("camera://0"), (), gate=gate), sinks=[screen])
    async with asyncio.TaskGroup() as group:
        group.create_task(session.run())
        await until(lambda: screen.count > 5)
        plugs.plugged.clear()
        before = screen.count
        await until(lambda: session.stats()["shown"] == "slate")
        assert screen.count - before > 2, "pictures went out all the time"
        assert "is gone" in session.source_state
        back = time.monotonic()
        plugs.plugged.set()
        await until(lambda: (screen.captured[-1] or 0) > back)
        session.stop()
    assert session.counts.counters["slate_shown"] > 0


# --- what is said where it does not open


async def refusal(url: str, **more: Any) -> str:
    with pytest.raises(StreamFXError) as caught:
        async with asyncio.timeout(15), open_source(MediaUrl.parse(url), request(**more)):
            pass
    return str(caught.value)


async def test_a_busy_camera_is_told_with_the_others(plugs: FakeDevices) -> None:
    plugs.faults["/dev/video0"] = errno.EBUSY
    assert await refusal("camera://0") == (
        "camera Test Camera (/dev/video0) is in use by another program; close that one, "
        "or use another: Spare (/dev/video2)"
    )


async def test_one_that_may_not_be_opened(plugs: FakeDevices) -> None:
    plugs.faults["/dev/video0"] = errno.EACCES
    assert "may not be opened" in await refusal("camera://0")


async def test_one_that_is_not_there(plugs: FakeDevices) -> None:
    assert "there is no camera 5; there are: Test Camera (/dev/video0), Spare" in await refusal("camera://5")


async def test_a_microphone_that_fails_beside_a_camera(plugs: FakeDevices) -> None:
    plugs.faults["plughw:CARD=T,DEV=0"] = errno.EIO
    assert "microphone Test Mic (plughw:CARD=T,DEV=0) cannot be opened" in await refusal("camera://0?mic=test")


async def test_a_camera_that_gives_nothing_at_all(plugs: FakeDevices) -> None:
    plugs.graphs["/dev/video0"] = "testsrc=size=64x48:rate=50:duration=0.001,trim=end_frame=0"
    assert "gave nothing" in await refusal("camera://0")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("camera://0?size=huge", "'huge'"),
        ("camera://0?fps=0", "from 1 to 240"),
        ("camera://0?mick=1", "did you mean 'mic'"),
        ("microphone://C920", "write microphone://default"),
        ("microphone://default?size=1x1", "unknown option"),
    ],
)
async def test_urls_that_cannot_be_meant(plugs: FakeDevices, url: str, says: str) -> None:
    assert says in await refusal(url, sound_will_do=True)


async def test_a_microphone_has_no_picture(plugs: FakeDevices) -> None:
    assert "has no picture; choose a filter that is driven by sound" in await refusal("microphone://default")


def test_over_http_no_device_can_be_asked_for() -> None:
    for text in ("camera://0", "CAMERA:///dev/video0", "microphone://default", "camera://?name=x"):
        with pytest.raises(UsageError, match="over HTTP"):
            source_from_outside(text)
    assert SessionConfig(source="camera://0").source == "camera://0", "a server's own configuration may"


# --- what is asked of a camera

LAPTOP = (
    Mode("yuyv422", (640, 480), (30.0,)),
    Mode("yuyv422", (1280, 720), (10.0,)),
    Mode("mjpeg", (1280, 720), (30.0, 60.0)),
    Mode("mjpeg", (1920, 1080), (30.0,)),
)


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        (Wanted(), Wanted((1280, 720), 30.0, "mjpeg")),
        (Wanted((640, 480)), Wanted((640, 480), 30.0, "yuyv422")),
        (Wanted((1280, 720), 60.0), Wanted((1280, 720), 60.0, "mjpeg")),
        (Wanted((1280, 720), 10.0), Wanted((1280, 720), 10.0, "yuyv422")),
        (Wanted((1920, 1080), 60.0), Wanted((1920, 1080), 30.0, "mjpeg")),
        (Wanted(format="yuyv422"), Wanted((1280, 720), 10.0, "yuyv422")),
        (Wanted((800, 600), 30.0, "h264"), Wanted((800, 600), 30.0, "h264")),
    ],
)
def test_what_is_asked_of_a_camera(wanted: Wanted, asked: Wanted) -> None:
    assert choose(LAPTOP, wanted) == asked


def test_without_a_list_of_modes_the_driver_decides() -> None:
    assert choose((), Wanted(fps=25.0)) == Wanted(fps=25.0)


@pytest.mark.parametrize(
    ("platform", "target"),
    [
        ("linux", ("v4l2", "0", {"video_size": "640x480", "framerate": "15", "input_format": "mjpeg"})),
        ("darwin", ("avfoundation", "0:none", {"video_size": "640x480", "framerate": "15", "pixel_format": "mjpeg"})),
        (
            "win32",
            (
                "dshow",
                "video=0",
                {"video_size": "640x480", "framerate": "15", "pixel_format": "mjpeg", "rtbufsize": "134217728"},
            ),
        ),
    ],
)
def test_how_each_system_opens_a_camera(monkeypatch: pytest.MonkeyPatch, platform: str, target: Any) -> None:
    monkeypatch.setattr(devices.sys, "platform", platform)
    opened = target_of(Device("camera", "Cam", "0", ""), Wanted((640, 480), 15.0, "mjpeg"))
    assert (opened.format, opened.place, opened.options) == target
    if platform == "darwin":
        assert target_of(Device("camera", "Cam", "0", ""), Wanted()).options == {"framerate": "30"}
    sound = target_of(Device("microphone", "Mic", "0", ""), Wanted())
    assert sound.place == {"linux": "0", "darwin": ":0", "win32": "audio=0"}[platform]


# --- parts


def test_timestamps_of_every_clock_become_the_sessions() -> None:
    now, of_day = 5000.0, 1.7e9
    for stamp, captured in ((now - 0.03, now - 0.03), (of_day - 0.05, now - 0.05), (0.0, now)):
        times = CaptureTimes()
        assert times.map(stamp, now, of_day) == pytest.approx(captured)
        assert times.map(stamp + 0.04, now + 0.04, of_day + 0.04) == pytest.approx(captured + 0.04)


def test_a_clock_that_is_set_is_followed_and_nothing_comes_from_the_future() -> None:
    times = CaptureTimes()
    times.map(1.7e9, 5000.0, 1.7e9)
    assert times.map(1.7e9 + 3600.04, 5000.04, 1.7e9 + 3600.04) == pytest.approx(5000.04)
    assert times.map(1.7e9 + 3600.09, 5000.06, 1.7e9 + 3600.06) <= 5000.06


def test_sound_is_counted_and_kept_to_its_arrival() -> None:
    times, step = SoundTimes(), 0.01
    delays = [0.3, 0.2, 0.1, *[0.004, 0.0, 0.002] * 100]  # a sound server that needs a moment to begin
    starts = [times.map(step, 100 + step * (n + 1) + delay) for n, delay in enumerate(delays)]
    assert starts[-1] == pytest.approx(100 + step * (len(delays) - 1), abs=0.005)
    assert max(abs(gap - step) for gap in np.diff(starts[10:])) < 0.001, "evenly, though they came unevenly"


@pytest.mark.parametrize("rate", [0.9995, 1.0005])
def test_a_sound_card_whose_clock_is_off_is_followed(rate: float) -> None:
    times, step = SoundTimes(), 0.01
    for n in range(20_000):
        start = times.map(step, step * rate * (n + 1) + (0.003 if n % 3 else 0))
    assert start == pytest.approx(step * rate * 19_999, abs=0.01)


def test_after_samples_were_lost_sound_is_in_its_place_again() -> None:
    times, step = SoundTimes(), 0.01
    for n in range(1000):
        start = times.map(step, step * (n + 1) + (0.5 if n > 300 else 0))
    assert start == pytest.approx(step * 999 + 0.5, abs=0.01)


def test_sound_that_was_only_held_up_stays_in_its_place() -> None:
    times, step = SoundTimes(), 0.01
    for n in range(1000):
        start = times.map(step, max(step * (n + 1), 8.0 + n * 1e-5 if 300 < n < 800 else 0))
        assert start == pytest.approx(step * n, abs=0.01)


def test_of_pictures_the_newest_waits_and_of_sound_two_seconds() -> None:
    inbox = Inbox()
    pictures = [av.VideoFrame(16, 16, "rgb24") for _ in range(3)]
    assert [inbox.put((picture, 0.0, 0.0)) for picture in pictures] == [False, True, True]
    runs = [av.AudioFrame("s16", "mono", 12_000) for _ in range(10)]
    for run in runs:
        run.sample_rate = 48_000
    assert [inbox.put((run, 0.0, 0.0)) for run in runs] == [False] * 8 + [True] * 2
    taken = [inbox.take(0.0) for _ in range(9)]
    assert [entry[0] for entry in taken if entry] == [*runs[2:], pictures[2]]
    assert inbox.take(0.0) is None


class FakePacket:
    """One that is damaged, or holds a picture."""

    def __init__(self, damaged: bool) -> None:
        self._damaged = damaged

    def decode(self) -> list[av.VideoFrame]:
        if self._damaged:
            raise av.InvalidDataError(1, "Invalid data found when processing input")
        return [av.VideoFrame(16, 16, "rgb24")]


def test_a_damaged_packet_is_counted_and_nothing_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Container(FakeContainer):
        def demux(self, stream: Any) -> Iterator[Any]:
            nonlocal calls
            calls += 1
            if calls < 4:
                raise av.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            yield FakePacket(damaged=True)
            yield FakePacket(damaged=False)
            ending.wait(5)

    calls, ending = 0, threading.Event()
    monkeypatch.setattr(capture, "open_device", lambda target: Container(PICTURES, ending))
    inbox, counters = Inbox(), Counter[str]()
    recorder = Recorder(
        lambda: Target("camera", "avfoundation", "0"),
        lambda target, error: SourceError(str(error)),
        inbox,
        MonotonicClock(),
        lambda text: None,
        counters,
    )
    recorder.start()
    try:
        assert inbox.take(3.0) is not None
        assert counters == {"packets_damaged": 1}
    finally:
        ending.set()
        recorder.stop(1.0)


@pytest.mark.skipif(not Path("/usr/share/alsa/alsa.conf").exists(), reason="ALSA's settings are not installed")
def test_the_alsa_in_pyavs_package_finds_this_systems_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALSA_CONFIG_DIR", "ALSA_PLUGIN_DIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    find_alsa()
    with capture.open_device(Target("silence", "alsa", "null")) as container:
        stream = container.streams.audio[0]
        frame = next(container.decode(stream))
    assert frame.sample_rate == AUDIO_RATE
