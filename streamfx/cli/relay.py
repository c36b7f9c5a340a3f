"""``streamfx relay``: the server with one session that has targets, and a display of how they fare."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from streamfx.cli.targets import Targets, names_of
from streamfx.cli.trial import try_outputs
from streamfx.core.errors import UsageError
from streamfx.server import systemd
from streamfx.server.live_session import LiveSession
from streamfx.server.manager import RTMP_APP, Manager
from streamfx.server.serve import serve
from streamfx.server.settings import RelayConfig, load_relay_config

logger = logging.getLogger(__name__)

_REFRESH = 0.25
_WARNED = ("retrying", "failed")


def run_relay(path: Path | None, flags: Mapping[str, Any]) -> None:
    """Relays until it is told to stop. Raises ``StreamFXError``."""
    config = load_relay_config(path, flags, os.environ)

    def reread() -> RelayConfig:
        if path is None:
            raise UsageError("there is no file to read again; start the relay with --config to change it as it runs")
        return load_relay_config(path, flags, os.environ)

    console = Console(stderr=True)
    watch = _show if console.is_terminal else _log_changes
    asyncio.run(serve(config, _announce, reread=reread, watch=watch))


def try_relay(path: Path | None, flags: Mapping[str, Any]) -> int:
    """Tries all targets without sending a picture. Returns the exit code. Raises ``StreamFXError``."""
    config = load_relay_config(path, flags, os.environ)
    return try_outputs([config.settings_of(id, session) for id, session in config.all_sessions().items()])


def _announce(address: str, manager: Manager) -> None:
    host = address.partition("://")[2].rpartition(":")[0]
    rtmp = f"rtmp://{host}:{manager.rtmp_port}/{RTMP_APP}/****, " if manager.rtmp_port is not None else ""
    logger.info("publish to %s%swhip/live; page, health and metrics at %s", rtmp, address, address)


def _states(manager: Manager) -> dict[tuple[str, str], tuple[str, str]]:
    """State and error of every source and target, by session and name."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for session in manager.sessions.values():
        now = session.describe()
        found[session.id, "stream"] = now["state"], ""
        found[session.id, "source"] = now["source_state"], ""
        for name, row in zip(names_of(now["outputs"]), now["outputs"], strict=True):
            found[session.id, f"target {name}"] = row["state"], row["error"]
    return found


async def _log_changes(manager: Manager) -> None:
    """A line in the log whenever a source or a target changes; for ever. One that is tried again and again in vain is
    told of once."""
    told: dict[tuple[str, str], tuple[str, str]] = {}
    status = ""
    while True:
        states = _states(manager)
        told = {place: state for place, state in told.items() if place in states}
        for place, (state, error) in states.items():
            if not state or told.get(place) == (state, error) or (state == "connecting" and place in told):
                continue
            told[place] = state, error
            level = logging.WARNING if state in _WARNED else logging.INFO
            logger.log(level, "%s %s: %s%s", *place, state, f" ({error})" if error else "")
        targets = [state for (_, name), (state, _) in states.items() if name.startswith("target ")]
        now = f"{targets.count('live')} of {len(targets)} targets are live"
        if now != status:
            status = now
            systemd.tell(f"STATUS={status}")
        await asyncio.sleep(_REFRESH)


async def _show(manager: Manager) -> None:
    """Every session and its targets in the terminal; for ever."""
    tables: dict[str, Targets] = {}
    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        while True:
            for gone in tables.keys() - manager.sessions.keys():
                del tables[gone]
            parts: list[Any] = []
            for session in manager.sessions.values():
                table = tables.setdefault(session.id, Targets())
                parts += [_line(session), table.table(session.outputs)]
            live.update(Group(*parts))
            await asyncio.sleep(_REFRESH)


def _line(session: LiveSession) -> Text:
    meter = session.meter()
    line = Text("● ", style="bold green" if session.state == "running" else "yellow", no_wrap=True)
    line.append(f"{session.id} {session.state}", style="bold")
    if session.state == "running" and meter:
        line.append(f"  {meter['fps_out']:.1f} fps  {session.filter_name} {meter['rung'] or ''}")
    line.append(f"  {session.viewers} viewers  {session.describe()['source_state']}", style="dim")
    return line
