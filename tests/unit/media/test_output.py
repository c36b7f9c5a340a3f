"""What is written can be played: every container, in step, and whatever is killed on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from streamfx.core.frames import AUDIO_RATE
from streamfx.media.pattern import click_times, is_flash
from tests.support import BUNNY, Clip, command, environment, look_into, plain, streamfx

LIVE = "testpattern://?size=320x180&fps=25"
CONTAINERS = ("mp4", "mkv", "mov", "ts", "flv")


LEAD_IN = dict.fromkeys(("ts", "flv"), 1024 / AUDIO_RATE)
"""Seconds of the encoder's lead-in, which these formats cannot tell players to skip: silence before the first sound."""


def starts(path: Path) -> tuple[float, float]:
    """Seconds at which a player shows the first picture and plays the first sound, by the container's timestamps."""
    with av.open(str(path)) as container:
        first: dict[str, float] = {}
        for packet in container.demux(container.streams.video[0], container.streams.audio[0]):
            for frame in packet.decode():
                first.setdefault(packet.stream.type, frame.time)
    return first["video"], first["audio"]


# --- every container


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_file_to_file(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    answer = streamfx("run", BUNNY, out, "--size", "320x180")
    assert answer.code == 0, answer.err
    contents = look_into(out)
    assert contents.size == (320, 180)
    assert len(contents.video) == 132
    np.testing.assert_allclose(np.diff(contents.video), 0.04, atol=2e-3)
    picture, sound = starts(out)
    assert abs(picture - sound - LEAD_IN.get(suffix, 0)) < 0.005
    assert contents.audio[-1] - contents.audio[0] == pytest.approx(5.28, abs=0.1)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_all_at_once_from_a_live_source(
    tmp_path_factory: pytest.TempPathFactory, live_files: Path, suffix: str
) -> None:
    out = live_files / f"out.{suffix}"
    contents = look_into(out)
    assert 45 <= len(contents.video) <= 51
    picture, sound = starts(out)
    assert abs(picture - sound - LEAD_IN.get(suffix, 0)) < 0.005
    assert contents.video[-1] - contents.audio[-1] == pytest.approx(0, abs=0.15)


@pytest.fixture(scope="module")
def live_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    answer = streamfx("run", f"{LIVE}&duration=2", *(folder / f"out.{suffix}" for suffix in CONTAINERS))
    assert answer.code == 0, answer.err
    return folder


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_flash_goes_with_click(live_files: Path, suffix: str) -> None:
    flashes, clicks = flashes_and_clicks(live_files / f"out.{suffix}")
    assert len(flashes) == 2
    assert len(clicks) == 1, "the first click came before the first picture, with which a live stream begins"
    np.testing.assert_allclose(flashes[1:], clicks, atol=0.005)


def flashes_and_clicks(path: Path) -> tuple[list[float], list[float]]:
    """Seconds at which the test pattern's flash is lit, and at which its click begins."""
    flashes: list[float] = []
    sound: list[np.ndarray] = []
    sound_begins: float | None = None
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0], container.streams.audio[0]):
            for frame in packet.decode():
                if isinstance(frame, av.AudioFrame):
                    sound_begins = frame.time if sound_begins is None else sound_begins
                    sound.append(frame.to_ndarray())
                elif is_flash(frame.to_ndarray(format="rgb24")):
                    flashes.append(frame.time)
    assert sound_begins is not None
    return flashes, [sound_begins + seconds for seconds in click_times(np.concatenate(sound, axis=1))]


def test_overwrite(tmp_path: Path) -> None:
    clip = Clip(frames=5).write(tmp_path / "clip.mp4")
    (tmp_path / "out.mkv").write_text("old")
    assert streamfx("run", clip, tmp_path / "out.mkv", "-y").code == 0
    assert len(look_into(tmp_path / "out.mkv").video) == 5


def test_finished_mp4_is_an_ordinary_one(tmp_path: Path) -> None:
    """Its index lies in one piece, not in fragments, which some editors refuse."""
    clip = Clip(frames=100).write(tmp_path / "clip.mp4")
    assert streamfx("run", clip, tmp_path / "out.mp4").code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].frames == 100
        assert container.duration == pytest.approx(4e6, rel=0.02)
    data = (tmp_path / "out.mp4").read_bytes()
    assert boxes(data)[0] == "ftyp"
    assert "moov" in boxes(data)
    assert "moof" not in boxes(data)


def boxes(data: bytes) -> list[str]:
    names, at = [], 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        names.append(data[at + 4 : at + 8].decode("latin-1"))
        at += max(size, 8)
    return names


# --- running, and being ended


class Running:
    """``streamfx run ... --stats-json stats.json`` in a folder."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.process = process

    def stats(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            stats: dict[str, Any] = json.loads((self.folder / "stats.json").read_text())
            return stats
        return {"counters": {}, "outputs": [], "source_state": ""}

    def until(self, condition: Callable[[dict[str, Any]], object], timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while not condition(self.stats()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, self.stats()
            time.sleep(0.05)

    def until_frames(self, count: int) -> None:
        self.until(lambda stats: stats["counters"].get("frames_out", 0) >= count)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def outputs(self) -> list[psutil.Process]:
        """Its output processes, in the order in which they were started."""
        found = [child for child in self.children() if "streamfx.media.output_process" in " ".join(child.cmdline())]
        return sorted(found, key=lambda child: child.create_time())

    def end_by(self, number: int) -> tuple[float, str, str]:
        """Sends a signal; returns how long it took to end, and what was printed."""
        started = time.monotonic()
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return time.monotonic() - started, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts runs in a folder; none of their processes outlives the test."""
    started: list[Running] = []

    def run(*arguments: str, **more: Any) -> Running:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            command("run", *arguments, "--stats-json", "stats.json"),
            cwd=tmp_path, env=environment(), text=True, start_new_session=True, **(pipes | more),
        )  # fmt: skip
        started.append(Running(tmp_path, process))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        for pipe in (running.process.stdout, running.process.stderr):
            if pipe is not None:
                pipe.close()
        running.process.wait()


def still_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_live(start: Callable[..., Running], tmp_path: Path, number: int) -> None:
    running = start(LIVE, "out.mp4", "out.mkv")
    running.until_frames(30)
    children = running.children()
    seconds, _, err = running.end_by(number)
    assert running.process.returncode == 0, err
    assert seconds < 2
    assert "Traceback" not in err
    assert still_alive(children) == []
    sent = running.stats()["outputs"][0]["sent"]
    for name in ("out.mp4", "out.mkv"):
        assert abs(len(look_into(tmp_path / name).video) - sent) <= 1
    assert "moof" not in boxes((tmp_path / "out.mp4").read_bytes()), "it was finished properly"


def test_stopped_in_a_file(start: Callable[..., Running], tmp_path: Path) -> None:
    """What was converted so far is kept."""
    clip = Clip((640, 360), frames=50).write(tmp_path / "clip.mp4")
    running = start(f"{clip}?loop=1", "out.mp4")
    running.until_frames(50)
    seconds, _, err = running.end_by(signal.SIGINT)
    assert running.process.returncode == 0, err
    assert seconds < 2
    assert len(look_into(tmp_path / "out.mp4").video) >= 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_waiting_for_a_publisher(start: Callable[..., Running], tmp_path: Path, number: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = start(f"rtmp://127.0.0.1:{port}/live/k3y-0f-mine?listen=1", "out.mp4")
    running.until(lambda stats: "waiting for a publisher" in stats["source_state"])
    seconds, out, err = running.end_by(number)
    assert running.process.returncode == 0, err
    assert seconds < 1
    assert "k3y-0f-mine" not in out + err
    assert not (tmp_path / "out.mp4").exists()


def test_without_stdin(start: Callable[..., Running], tmp_path: Path) -> None:
    """As a service manager or cron may start it: descriptor 0 is closed."""
    running = start(f"{LIVE}&duration=1", "out.mp4", stdin=None, preexec_fn=lambda: os.close(0))
    _, err = running.process.communicate(timeout=15)
    assert running.process.returncode == 0, err
    assert len(look_into(tmp_path / "out.mp4").video) >= 20


def test_without_any_terminal(tmp_path: Path) -> None:
    """With all three descriptors closed."""
    clip = Clip(frames=10).write(tmp_path / "clip.mp4")
    program = (
        "import os, sys\nfor n in range(3): os.close(n)\n"
        f"os.execv(sys.executable, [sys.executable, '-m', 'streamfx', 'run', {str(clip)!r}, 'out.mkv'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=20, check=False, env=environment())
    assert done.returncode == 0
    assert len(look_into(tmp_path / "out.mkv").video) == 10


# --- killed


def test_killed_output_is_playable_and_goes_on(start: Callable[..., Running], tmp_path: Path) -> None:
    """It goes on in a second part, and takes nobody else's file for that."""
    (tmp_path / "out.2.mp4").write_text("somebody else's")
    running = start(LIVE, "out.mp4", "out.mkv")
    running.until_frames(75)
    for output in running.outputs():
        output.kill()
    parts = [tmp_path / "out.3.mp4", tmp_path / "out.2.mkv"]
    running.until(lambda stats: all(output["reconnects"] and output["state"] == "live" for output in stats["outputs"]))
    assert all(part.exists() for part in parts)
    running.until_frames(running.stats()["counters"]["frames_out"] + 30)
    _, _, err = running.end_by(signal.SIGINT)
    assert running.process.returncode == 0, err
    assert (tmp_path / "out.2.mp4").read_text() == "somebody else's"
    for name in ("out.mp4", "out.mkv"):
        assert len(look_into(tmp_path / name).video) >= 40
    for part in parts:
        assert len(look_into(part).video) >= 20
        picture, sound = starts(part)
        assert abs(picture - sound) < 0.005


def test_killed_stream_leaves_files_and_no_orphans(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(LIVE, "out.mp4", "out.mkv", "out.ts", "--filter", "passthrough")
    running.until_frames(75)
    children = running.children()
    assert len(children) == 4
    running.process.kill()
    running.process.wait()
    psutil.wait_procs(children, timeout=6)
    assert still_alive(children) == []
    for suffix in ("mp4", "mkv", "ts"):
        assert len(look_into(tmp_path / f"out.{suffix}").video) >= 60


def test_everything_killed_at_once(start: Callable[..., Running], tmp_path: Path) -> None:
    """As when the power fails: nobody gets to finish anything."""
    running = start(LIVE, "out.mp4", "out.mkv", "out.ts", "out.flv", "out.mov")
    running.until_frames(125)
    for victim in [psutil.Process(running.process.pid), *running.children()]:
        victim.kill()
    running.process.wait()
    for suffix in CONTAINERS:
        contents = look_into(tmp_path / f"out.{suffix}")
        assert len(contents.video) >= 40, suffix
        assert contents.audio, suffix


def test_shared_memory_is_gone(start: Callable[..., Running]) -> None:
    """Nothing with a name is left in the RAM disk, even by a killed stream."""
    shared = Path("/dev/shm")
    if not shared.is_dir():
        pytest.skip("no RAM disk here")
    before = set(shared.glob("streamfx-*"))
    running = start(LIVE, "out.mp4")
    running.until_frames(10)
    children = running.children()
    running.process.kill()
    running.process.wait()
    psutil.wait_procs(children, timeout=6)
    assert set(shared.glob("streamfx-*")) <= before


# --- quality


def test_picture_survives(tmp_path: Path) -> None:
    """Constant quality by default: a fine grating stays visible."""
    lines = plain((320, 180), (40, 40, 40))
    lines[::4] = lines[1::4] = 200
    clip = Clip((320, 180), pictures=[lines] * 10, frames=10, codec="libx264").write(tmp_path / "in.mp4")
    assert streamfx("run", clip, tmp_path / "out.mp4").code == 0
    first = look_into(tmp_path / "out.mp4").first
    assert first is not None
    assert float(np.abs(first.astype(int) - lines).mean()) < 6


def test_bitrate_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (180, 320, 3), np.uint8) for _ in range(50)]
    clip = Clip((320, 180), pictures=pictures, frames=50, codec="libx264").write(tmp_path / "in.mp4")
    (tmp_path / "run.yaml").write_text(f"input: {clip}\noutputs: {tmp_path}/out.mkv\nencode: {{video_kbps: 1000}}\n")
    assert streamfx("run", "-c", tmp_path / "run.yaml").code == 0
    assert (tmp_path / "out.mkv").stat().st_size * 8 / 2 / 1000 == pytest.approx(1000, rel=0.4)
