"""``streamfx serve``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from streamfx.server.manager import RTMP_APP, Manager
from streamfx.server.serve import serve
from streamfx.server.settings import load_serve_config


def run_server(path: Path | None, flags: Mapping[str, Any]) -> None:
    """Serves until it is interrupted. Raises ``StreamFXError``."""
    config = load_serve_config(path, flags, os.environ)
    asyncio.run(serve(config, _announce))


def _announce(address: str, manager: Manager) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]streamfx[/bold] is at [bold]{address}[/bold]  (Ctrl-C ends it)")
    if manager.config.secret:
        console.print("[dim]The page asks for the token.[/dim]")
    for session in manager.sessions.values():
        name = session.settings.filter.type.name if session.settings.filter else "none"
        console.print(f"  session {session.id}: filter {name}", style="dim")
    if manager.rtmp_port is not None:
        host = address.partition("://")[2].rpartition(":")[0]
        console.print(
            f"  OBS publishes to rtmp://{host}:{manager.rtmp_port}/{RTMP_APP}; the page tells the key", style="dim"
        )
