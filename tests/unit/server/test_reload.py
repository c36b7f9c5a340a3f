"""A configuration that is read again: what differs, what can be applied, and what systemd is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamfx.core.errors import ConfigError, UsageError
from streamfx.media.base import SinkState
from streamfx.server import systemd
from streamfx.server.live_session import ConflictError, FullError
from streamfx.server.manager import Manager
from streamfx.server.reload import Plan, Reloader, changed_params, needs_restart, plan, reload_on_signal
from streamfx.server.settings import RelayConfig, SessionConfig, load_relay_config
from tests.unit.server.test_api import eventually
from tests.unit.webrtc.clients import CameraTrack, client, grey

KEY = "k3y-of-a-publisher"
ONE, TWO = (f"rtmp://127.0.0.1:9/live/{name}-k3y" for name in ("one", "two"))


def relay(**config: Any) -> RelayConfig:
    return RelayConfig.model_validate({"rtmp_port": 0, "filter": {"name": "pixelate"}} | config)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return needs_restart(plan(relay(**before)), plan(relay(**after)))


def test_what_takes_a_restart() -> None:
    assert differences({}, {}) == []
    assert differences({"outputs": [ONE]}, {"outputs": [TWO], "filter": None}) == []
    assert differences({"budget_ms": 100}, {"budget_ms": 200, "size": "640x360"}) == ["budget_ms", "size"]
    assert differences({}, {"port": 81, "encode": {"video_kbps": 900}}) == ["encode", "port"]
    assert differences({"webrtc": {"codecs": ["VP8"]}}, {}) == ["webrtc"]
    assert differences({"rtmp_key": KEY}, {"rtmp_key": f"{KEY}2"}) == ["rtmp_key"]
    a, b = {"sessions": {"a": {"fps": 30}}}, {"sessions": {"a": {"fps": 25}, "b": {}}}
    assert differences(a, b) == ["sessions.a.fps", "sessions.b"]
    assert differences(b, a) == ["sessions.a.fps", "sessions.b"]


def test_which_parameters_a_filter_takes_as_it_runs() -> None:
    def choice(name: str = "pixelate", **more: Any) -> Any:
        return plan(relay(filter={"name": name} | more)).sessions["live"].filter

    assert changed_params(choice(), choice()) == {}
    assert changed_params(choice(), choice(params={"cell": 64})) == {"cell": 64}
    assert changed_params(choice(params={"cell": 64}), choice()) == {"cell": choice().params.cell}
    assert changed_params(choice(), choice("toon")) is None
    assert changed_params(choice(), choice(threads=3)) is None
    assert changed_params(choice(), None) is changed_params(None, choice()) is None
    assert changed_params(None, None) == {}
    # What is read at its set-up only.
    assert changed_params(choice("avatar"), choice("avatar", params={"photo": "face.jpg"})) is None


@contextlib.asynccontextmanager
async def running(**config: Any) -> AsyncIterator[tuple[Manager, Reloader, Plan]]:
    manager = Manager(relay(**config))
    async with manager.running():
        before = plan(manager.config)
        yield manager, Reloader(manager, before), before


def places(manager: Manager) -> list[str]:
    session = manager.sessions["live"]
    return [url.raw for url in session._outputs.values()]


async def test_outputs_and_parameters_are_applied(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamfx.server.reload")
    async with running(outputs=[ONE]) as (manager, reloader, _):
        wanted = {"outputs": [TWO], "filter": {"name": "pixelate", "params": {"cell": 64}}, "budget_ms": 99}
        await reloader.apply(plan(relay(**wanted)))
        assert places(manager) == [TWO]
        assert manager.sessions["live"].params["cell"] == 64
        assert "takes a restart: budget_ms" in caplog.text
        assert "k3y" not in caplog.text
        caplog.clear()
        # Only what needs a restart is told again.
        await reloader.apply(plan(relay(**wanted)))
        assert caplog.messages == ["reload: changed, but takes a restart: budget_ms"]
        await reloader.apply(plan(relay(**wanted | {"budget_ms": 250})))
        assert caplog.messages[1:] == ["reload: nothing has changed"]
        await reloader.apply(plan(relay(**wanted | {"filter": {"name": "toon"}})))
        assert manager.sessions["live"].filter_name == "toon"
        await reloader.apply(plan(relay(**wanted | {"filter": None})))
        assert manager.sessions["live"].filter_name == "none"


async def test_what_was_changed_over_http_stays() -> None:
    async with running(outputs=[ONE]) as (manager, reloader, _):
        session = manager.sessions["live"]
        other = f"{TWO}-by-hand"
        await session.add_output(plan(relay(outputs=[other])).sessions["live"].outputs[other])
        session.set_params({"tones": 4})
        new = {"name": "pixelate", "params": {"cell": 64}}
        await reloader.apply(plan(relay(outputs=[ONE, TWO, other], filter=new)))
        assert sorted(places(manager)) == sorted([ONE, other, TWO])
        assert (session.params["cell"], session.params["tones"]) == (64, 4)


async def test_a_signal_reads_again_and_a_broken_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(f"rtmp_port: 0\nto: {ONE}\n")

    def load() -> RelayConfig:
        return load_relay_config(file, {}, {})

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        manager = Manager(load())
        async with manager.running():
            task = asyncio.create_task(reload_on_signal(manager, load))
            try:
                await asyncio.sleep(0.1)
                for text in ("to: [\n", "rtmp_port: 0\nfilter: nosuch\n", "rtmp_port: 0\nto: twich:secretk3y\n"):
                    file.write_text(text)
                    os.kill(os.getpid(), signal.SIGHUP)
                    await eventually(lambda: "nothing was changed" in caplog.text)
                    assert places(manager) == [ONE]
                    assert "secretk3y" not in caplog.text
                    assert "Traceback" not in caplog.text
                    assert [listener.recv(999).partition(b"\n")[0] for _ in range(2)] == [b"RELOADING=1", b"READY=1"]
                    caplog.clear()
                file.write_text(f"rtmp_port: 0\nto: [{ONE}, {TWO}]\n")
                os.kill(os.getpid(), signal.SIGHUP)
                await eventually(lambda: places(manager) == [ONE, TWO])
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def test_nobody_is_told_where_nobody_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.tell("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    systemd.tell("READY=1")


def test_the_configuration_of_a_relay(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        f"to: {ONE}\nfilter: toon\nsize: 640x360\nencode: {{video_kbps: 900}}\nsessions: {{b: {{to: {TWO}}}}}\n"
    )
    environment = {"STREAMFX_RTMP_KEY": KEY}
    config = load_relay_config(file, {}, environment)
    sessions = config.all_sessions()
    live, other = (config.settings_of(id, sessions[id]) for id in ("live", "b"))
    assert ([str(url) for url in live.outputs], live.size) == (["rtmp://127.0.0.1:9/live/****"], (640, 360))
    assert live.encode.video_bitrate == other.encode.video_bitrate == 900_000
    assert other.size is None
    assert sessions["live"].rtmp_key is not None
    with pytest.raises(UsageError, match="STREAMFX_RTMP_KEY"):
        load_relay_config(file, {}, {})
    with pytest.raises(UsageError, match="less than 8 characters"):
        load_relay_config(file, {}, {"STREAMFX_RTMP_KEY": "short"})
    assert load_relay_config(file, {"rtmp_port": 0}, {}).rtmp_key is None
    for text, says in (
        ("to: a.mkv\noutputs: b.mkv", "`to` and `outputs` are the same"),
        ("two: a.mkv", "unknown key 'two'"),
        ("sessions: {live: {}}", "session live"),
    ):
        file.write_text(text)
        with pytest.raises((ConfigError, UsageError), match=says):
            load_relay_config(file, {}, environment)


async def test_a_drained_server_takes_nobody() -> None:
    async with running() as (manager, _, _), client(CameraTrack(lambda n: grey(120))) as (_, _, offer):
        session = manager.sessions["live"]
        await manager.drain(5)
        assert not manager.accepting
        with pytest.raises(ConflictError, match="has ended"):
            await session.open_peer("whip", offer)
        with pytest.raises(FullError, match="about to end"):
            await manager.create(None, SessionConfig())


async def test_a_recording_of_a_server_never_meets_the_last_one(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    target.write_bytes(b"the last one")
    (tmp_path / "out.2.mkv").write_bytes(b"the one before")
    source = {"source": "testpattern://?size=64x48&fps=10", "encode": {"encoder": "software"}}
    async with running(outputs=[str(target)], filter=None, **source) as (manager, _, _):
        session = manager.sessions["live"]
        await eventually(lambda: any(row["state"] == SinkState.LIVE for row in session.outputs))
        await manager.drain(5)
    assert target.read_bytes() == b"the last one"
    assert (tmp_path / "out.3.mkv").stat().st_size > 0
