"""Targets of one encoder come, go and begin anew, with our own RTMP server at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streamfx.core.backoff import Backoff
from streamfx.ipc.child import spawn
from streamfx.media import hardware, process_sink, shared_encoder
from streamfx.media.base import EncodeSettings, OutputFormat, Shared, SinkState, make_sink
from streamfx.media.hardware import ENCODERS, Faults
from streamfx.media.rtmp.connection import FlvTag
from streamfx.media.rtmp.flv import parse_video
from streamfx.media.rtmp.publish import Publisher
from streamfx.media.rtmp.server import RtmpServer
from streamfx.media.target import Target
from streamfx.media.url import MediaUrl
from tests.support import ramp

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

SIZE = (160, 96)
FPS = 50


def format_of(encoder: str = "software") -> OutputFormat:
    settings = EncodeSettings(encoder=encoder, gop_seconds=10, preset="ultrafast")  # type: ignore[arg-type]
    return OutputFormat(SIZE, Fraction(FPS), True, True, settings)


class Platform:
    """Keeps what each connection to ``rtmp://.../live/NAME`` brought."""

    def __init__(self, server: RtmpServer, scheme: str) -> None:
        self._server = server
        self._scheme = scheme
        self.connections: dict[str, list[list[FlvTag]]] = {}
        self.publishers: list[Publisher] = []

    def url(self, name: str) -> MediaUrl:
        found = self.connections[name] = []

        async def keep(publisher: Publisher) -> None:
            self.publishers.append(publisher)
            found.append([])
            tags = found[-1]
            async for tag in publisher.tags():
                tags.append(tag)

        self._server.add_route("live", name, keep)
        return MediaUrl.parse(f"{self._scheme}://127.0.0.1:{self._server.port}/live/{name}")

    def begins_well(self, name: str) -> bool:
        """Whether the last connection began with headers and a key frame, at a time near 0."""
        pictures = [tag for tag in self.connections[name][-1] if tag.kind == "video"]
        first, second = parse_video(pictures[0].body), parse_video(pictures[1].body)
        return first.kind == "config" and second.keyframe and pictures[1].timestamp_ms < 100


class Stage:
    """A stream that is shown to targets, as a session does it."""

    def __init__(self, output: OutputFormat, group: asyncio.TaskGroup) -> None:
        self._output = output
        self._group = group
        self._encoders = Shared()
        self.targets: list[Target] = []

    def add(self, url: MediaUrl) -> Target:
        target = make_sink(url, self._output, self._encoders)
        assert isinstance(target, Target)
        self.targets.append(target)
        self._group.create_task(target.run())
        return target

    async def remove(self, target: Target) -> None:
        self.targets.remove(target)
        await target.finish(2.0)

    async def play(self) -> None:
        samples = 48_000 // FPS
        for n in range(100_000):
            for target in self.targets:
                target.write_video(ramp(SIZE, n), n / FPS)
            for target in self.targets:
                target.write_audio(np.zeros((2, samples), np.float32), n * samples)
            await asyncio.sleep(1 / FPS)


@contextlib.asynccontextmanager
async def staged(output: OutputFormat, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Stage, Platform]]:
    async with RtmpServer(port=0, ssl=context) as server, asyncio.timeout(20), asyncio.TaskGroup() as group:
        stage = Stage(output, group)
        playing = group.create_task(stage.play())
        yield stage, Platform(server, "rtmps" if context else "rtmp")
        for target in list(stage.targets):
            await stage.remove(target)
        playing.cancel()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries again does so at once."""
    monkeypatch.setattr(process_sink, "Backoff", lambda first, longest: Backoff(0.02, 0.02))


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_added_and_removed_while_it_runs() -> None:
    async with staged(format_of()) as (stage, platform):
        first = stage.add(platform.url("first-key"))
        await until(lambda: first.sent > 20)
        second = stage.add(platform.url("second-key"))
        await until(lambda: second.sent > 20)
        assert first._encoder is second._encoder
        await stage.remove(first)
        assert first.state is SinkState.CLOSED
        sent = second.sent
        await until(lambda: second.sent > sent + 20)
        assert second.state is SinkState.LIVE
    assert platform.begins_well("first-key")
    assert platform.begins_well("second-key")
    assert (second.dropped, second.reconnects) == (0, 0)
    assert (first.dropped, first.reconnects) == (0, 0)
    pictures = [tag for tag in platform.connections["second-key"][0] if tag.kind == "video"]
    assert sum(parse_video(tag.body).kind == "frame" for tag in pictures) == second.sent, "all that was sent came"


async def test_peer_that_hangs_up_is_called_again() -> None:
    async with staged(format_of()) as (stage, platform):
        steady, other = stage.add(platform.url("steady-key")), stage.add(platform.url("other-key"))
        await until(lambda: steady.sent > 10 and other.sent > 10)
        platform.publishers[-1].end("goodbye")
        await until(lambda: SinkState.RETRYING in (steady.state, other.state))
        gone, stayed = (steady, other) if steady.state is SinkState.RETRYING else (other, steady)
        assert gone.error
        await until(lambda: gone.state is SinkState.LIVE)
        sent = gone.sent
        await until(lambda: gone.sent > sent + 10)
        assert (stayed.dropped, stayed.reconnects, gone.reconnects) == (0, 0, 1)
        assert all(platform.begins_well(name) for name in platform.connections)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_encrypted(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
        "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with staged(format_of(), context) as (stage, platform):
        target = stage.add(platform.url("secret-key"))
        await until(lambda: target.sent > 20)
    assert platform.begins_well("secret-key")


async def test_hardware_that_fails_makes_targets_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the headers of the software encoder, at once, and without counting it against them."""
    found = Faults({codec: "" if codec == "h264_nvenc" else "no" for codec in ENCODERS}, {})
    monkeypatch.setattr(hardware, "_found", [found])
    monkeypatch.setenv("FAILING_WAY", "later")
    monkeypatch.setattr(shared_encoder, "spawn", lambda module, name: spawn("tests.unit.media.failing_encoder", name))
    async with staged(format_of("auto")) as (stage, platform):
        targets = [stage.add(platform.url(name)) for name in ("first-key", "second-key")]
        await until(lambda: all(target.stats()["encoder_failures"] == 1 for target in targets))
        before = [target.sent for target in targets]
        await until(lambda: all(target.sent > sent + 10 for target, sent in zip(targets, before, strict=True)))
        assert [target.stats()["encoder"] for target in targets] == ["libx264"] * 2
        assert [target.reconnects for target in targets] == [0, 0]
        assert [len(found) for found in platform.connections.values()] == [2, 2]
        assert all(platform.begins_well(name) for name in platform.connections)
