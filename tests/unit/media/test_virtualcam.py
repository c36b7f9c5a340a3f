"""The virtual camera: its pace, its process with a fake driver that fails, and what is said where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamfx.core.backoff import Backoff
from streamfx.core.cadence import Cadence
from streamfx.core.errors import SinkError, UsageError
from streamfx.ipc.arena import Arena
from streamfx.media import devices, process_sink, v4l2, virtualcam
from streamfx.media.base import LIVE_SINKS, EncodeSettings, OutputFormat, SinkState, check_scheme
from streamfx.media.devices import Device
from streamfx.media.slots import SlotLayout
from streamfx.media.url import MediaUrl
from streamfx.media.virtualcam import check_device, check_url, place_of, virtual_camera
from streamfx.media.virtualcam_process import Camera, serve
from streamfx.server.settings import SessionConfig, output_from_outside
from tests.support import plain, streamfx

SIZE = (64, 48)
FORMAT = OutputFormat(SIZE, Fraction(50), audio=True, live=True, encode=EncodeSettings())
MODPROBE = "sudo modprobe v4l2loopback exclusive_caps=1 card_label=streamfx"


# --- the pace


def written(fps: float, arrivals: list[float], until: float) -> list[tuple[float, int]]:
    """When which picture (the number of its arrival) is written, in seconds."""
    cadence, out, now, waiting, newest = Cadence(fps), [], 0.0, False, -1
    coming = list(enumerate(arrivals))
    while True:
        due = max(cadence.due(waiting), now)
        if coming and coming[0][1] <= due:
            newest, now = coming.pop(0)
            waiting = True
            continue
        if due > until:
            return out
        now = due
        cadence.wrote(now, waiting)
        waiting = False
        out.append((round(now, 6), newest))


def test_pictures_in_time_go_out_as_they_come() -> None:
    arrivals = [0.1 * n + (0.01 if n % 2 else 0) for n in range(20)]
    assert written(10, arrivals, 1.95) == [(pytest.approx(at), n) for n, at in enumerate(arrivals)]


def test_the_last_picture_is_repeated_at_the_rate_of_the_output() -> None:
    out = written(10, [0.0, 0.1], 1.1)
    assert [n for _, n in out] == [0, *[1] * 10]
    np.testing.assert_allclose(np.diff([at for at, _ in out[2:]]), 0.1)


def test_nothing_is_written_before_the_first_picture() -> None:
    assert written(10, [], 10) == []


def test_of_a_burst_the_newest_is_written_and_in_order() -> None:
    out = written(10, [0.0, 0.4, 0.401, 0.402, 0.5], 0.6)
    numbers = [n for _, n in out]
    assert numbers == sorted(numbers)
    assert 2 not in numbers, "one between was too late"
    assert min(np.diff([at for at, _ in out])) > 0.0499, "never twice within half a period"


def test_a_standstill_is_not_made_up_for() -> None:
    cadence = Cadence(10)
    cadence.wrote(0.0, True)
    cadence.wrote(5.0, False)
    assert 5.0 < cadence.due(False) <= 5.1


class FakeLine:
    """A parent that sends pictures at given moments; waiting for it is what moves the clock."""

    def __init__(self, layout: SlotLayout, arena: Arena, pictures: list[tuple[float, int]], end: float) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self._layout, self._arena = layout, arena
        self._pictures, self._end = pictures, end

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        until = self.now + timeout if timeout is not None else self._end
        next_at = self._pictures[0][0] if self._pictures else self._end
        if next_at > until:
            self.now = until
            raise TimeoutError
        self.now = max(self.now, next_at)
        if not self._pictures:
            return None
        _, shade = self._pictures.pop(0)
        self._layout.video(self._arena, 3)[:] = shade
        return {"kind": "video", "slot": 3, "pts": 0.0}

    def send(self, **message: Any) -> None:
        self.told.append(message["kind"])


def test_the_process_writes_each_picture_and_repeats_the_last() -> None:
    layout = SlotLayout(SIZE)
    arena = Arena.create(layout.size)
    try:
        line = FakeLine(layout, arena, [(0.0, 10), (0.02, 20), (0.0201, 30), (0.2, 40)], end=0.3)
        out: list[tuple[float, int]] = []
        serve(line, lambda pixels: out.append((line.now, int(pixels[0, 0, 0]))), arena, FORMAT, lambda: line.now)
    finally:
        arena.unlink()
        arena.close()
    shades = [shade for _, shade in out]
    assert shades == sorted(shades)
    assert set(shades) >= {10, 30, 40}
    assert len(out) == pytest.approx(0.3 * 50, abs=2), "at the output's rate, whatever came"
    assert line.told.count("free") == 4
    assert line.told.count("sent") + line.told.count("skipped") == 4
    assert line.told.count("repeated") > 8


# --- the process, with a driver that fails


class Bench:
    """A virtual camera's sink with the fake driver, and what that took."""

    def __init__(self, folder: Path) -> None:
        self.log, self.way = folder / "log", folder / "way"
        self.sink = virtual_camera(MediaUrl.parse("virtualcam://"), FORMAT)
        self.states: list[tuple[str, str]] = []
        set_state = self.sink._set
        self.sink._set = lambda state: (self.states.append((state.value, self.sink.error)), set_state(state))[1]

    def lines(self, key: str) -> list[Any]:
        if not self.log.exists():
            return []
        entries = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [entry for entry in entries if key in entry]

    async def until(self, condition: Callable[[], object], shade: int | None = 0) -> None:
        """Writes pictures of a shade in the meantime, as the stream does; None: nothing."""
        async with asyncio.timeout(15):
            while not condition():
                if shade is not None:
                    self.sink.write_video(plain(SIZE, (shade, 100, 200)), 0.0)
                    self.sink.write_audio(np.zeros((2, 960), np.float32), 0)
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sink.run())
            try:
                yield
            finally:
                await self.sink.finish(2.0)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    pytest.importorskip("pyvirtualcam", reason="its package is for x86-64 on Linux")
    monkeypatch.setattr(virtualcam.VirtualCamera, "_program", "tests.unit.media.fake_virtualcam")
    monkeypatch.setattr(virtualcam, "_LOOK_EVERY", 0.1)
    monkeypatch.setattr(process_sink, "Backoff", lambda first, longest: Backoff(0.05, 0.1))
    monkeypatch.setenv("FAKE_CAMERA_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_CAMERA_WAY", str(tmp_path / "way"))
    return Bench(tmp_path)


async def test_pictures_reach_the_device_as_rgb_at_the_outputs_size_and_rate(bench: Bench) -> None:
    sink = bench.sink
    async with bench.running():
        await sink.opened()
        assert sink.state is SinkState.LIVE
        for shade in (10, 20, 30):
            await bench.until(
                lambda shade=shade: [shade, 100, 200] in [e["pixel"] for e in bench.lines("pixel")], shade
            )
        before = len(bench.lines("pixel"))
        # The last one is repeated while none comes.
        await bench.until(lambda: len(bench.lines("pixel")) > before + 5, shade=None)
    assert sink.state is SinkState.CLOSED
    (opened,) = bench.lines("size")
    assert opened == {"size": list(SIZE), "fps": 50.0, "fourcc": "raw "}
    assert {entry["length"] for entry in bench.lines("pixel")} == {SIZE[0] * SIZE[1] * 3}
    shades = [entry["pixel"][0] for entry in bench.lines("pixel")]
    assert shades == sorted(shades)
    assert bench.lines("closed")
    stats = sink.stats()
    assert (stats["state"], stats["device"], stats["error"], stats["reconnects"]) == ("closed", "fake camera", "", 0)
    assert stats["sent"] >= 3
    assert stats["repeated"] > 5
    assert stats["bytes"] >= stats["sent"] * SIZE[0] * SIZE[1] * 3 // 2


async def test_a_device_that_fails_in_any_way_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = bench.sink
    async with bench.running():
        for way, says in {"gone": "takes no pictures", "crash": "process ended", "hang": "took nothing"}.items():
            sent = sink.stats()["sent"]
            await bench.until(lambda sent=sent: sink.state is SinkState.LIVE and sink.stats()["sent"] > sent)
            assert sink.error == ""
            monkeypatch.setattr(virtualcam, "_PATIENCE", 0.3 if way == "hang" else 6.0)
            bench.way.write_text(way)
            await bench.until(
                lambda says=says: any(says in error for state, error in bench.states if state == "retrying")
            )
            bench.way.unlink()
            monkeypatch.setattr(virtualcam, "_PATIENCE", 6.0)
        await bench.until(lambda: sink.state is SinkState.LIVE)
    assert sink.stats()["missed_while_away"] > 0
    assert sink.stats()["reconnects"] >= 3


async def test_one_that_cannot_be_opened_at_the_beginning_has_failed(bench: Bench) -> None:
    bench.way.write_text("busy")
    async with bench.running():
        await bench.sink.opened()
        await bench.sink.room()
        assert bench.sink.state is SinkState.FAILED
        assert "another program feeds it" in bench.sink.error


# --- what is said where there is none


@pytest.fixture
def no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(virtualcam, "virtual_cameras", list)
    monkeypatch.setattr(virtualcam, "cameras", list)


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        check_device(MediaUrl.parse(text))
    return str(caught.value)


def test_without_a_device_the_commands_are_told(no_devices: None) -> None:
    said = refusal("virtualcam://")
    assert "sudo apt install v4l2loopback-dkms" in said
    assert MODPROBE in said


def test_where_devices_may_not_be_opened_that_is_told(no_devices: None, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Device("camera", "streamfx", "/dev/video4", "", fault="may not be opened; sudo usermod -aG video $USER")
    monkeypatch.setattr(virtualcam, "cameras", lambda: [closed])
    assert "/dev/video4 may not be opened; sudo usermod" in refusal("virtualcam://")


def test_a_named_device_that_is_not_there(no_devices: None, tmp_path: Path) -> None:
    assert "/dev/video97 does not exist" in refusal("virtualcam:///dev/video97")
    assert f"{tmp_path} is no virtual camera" in refusal(f"virtualcam://{tmp_path}")
    assert "called 'Nobody'" in refusal("virtualcam://?name=Nobody")


def test_one_that_somebody_feeds_is_told_with_a_free_one(no_devices: None, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = Device(
        "virtual camera", "OBS Cam", "/dev/video4", "virtualcam:///dev/video4", fault="another program feeds it"
    )
    free = Device("virtual camera", "streamfx", "/dev/video5", "virtualcam:///dev/video5")
    monkeypatch.setattr(virtualcam, "virtual_cameras", lambda: [fed, free])
    said = refusal("virtualcam:///dev/video4")
    assert "OBS Cam (/dev/video4) is fed by another program" in said
    assert "use virtualcam:///dev/video5" in said
    check_device(MediaUrl.parse("virtualcam://"))
    check_device(MediaUrl.parse("virtualcam://?name=streamfx"))
    assert [place_of(wanted) for wanted in (None, "streamfx", "/dev/video7")] == [None, "/dev/video5", "/dev/video7"]


def test_without_the_library_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    assert "pip install 'streamfx[virtualcam]'" in refusal("virtualcam://")
    with pytest.raises(SinkError, match="pip install"):
        Camera(FORMAT, None, None)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("virtualcam://video4", "write virtualcam://, virtualcam:///dev/video4"),
        ("virtualcam:///dev/video4?name=x", "names two"),
        ("virtualcam://?backend=obs", "'obs' is not known here; there are: v4l2loopback"),
        ("virtualcam://?devise=1", "unknown option"),
    ],
)
def test_urls_that_cannot_be_meant(no_devices: None, url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_url(MediaUrl.parse(url))


def test_it_is_a_live_output() -> None:
    check_scheme(MediaUrl.parse("virtualcam://"), output=True)
    assert "virtualcam" in LIVE_SINKS


def test_over_http_no_virtual_camera_can_be_asked_for() -> None:
    for text in ("virtualcam://", "virtualcam:///dev/video0", "VIRTUALCAM://?backend=obs"):
        with pytest.raises(UsageError, match="over HTTP"):
            output_from_outside(text)
    assert SessionConfig(outputs=["virtualcam://"]).outputs == ["virtualcam://"], "a server's own configuration may"


@pytest.mark.skipif(any(Path("/dev").glob("video*")), reason="there may be a virtual camera here")
def test_the_command_ends_in_one_sentence() -> None:
    answer = streamfx("run", "testpattern://", "virtualcam://")
    assert answer.code == 2
    assert MODPROBE in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_real_library_and_no_device(no_devices: None) -> None:
    """The library's own words, where the first look did not see it coming."""
    pytest.importorskip("pyvirtualcam", reason="its package is for x86-64 on Linux")
    if any(Path("/dev").glob("video*")):
        pytest.skip("there may be a virtual camera here")
    with pytest.raises(SinkError, match=r"could not be opened .*No v4l2 loopback device found.*modprobe"):
        Camera(FORMAT, None, None)
    assert devices.virtual_cameras() == []
    assert not v4l2.Node("uvcvideo", "Camera", "usb", 1).is_loopback
