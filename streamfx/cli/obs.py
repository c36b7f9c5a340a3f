"""``streamfx obs``."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from streamfx.obs.connection import connect
from streamfx.obs.session import WatchedSession, fetch_session
from streamfx.obs.source import MEDIA, Placed, put_source, remove_source
from streamfx.obs.stream import send_to, start


@dataclass(frozen=True)
class SetUp:
    """What is wanted. ``scene``: None for the current one; ``source``: whether a source is put there; ``send``: how
    OBS is to publish to the session, None for not."""

    obs: str
    server: str
    session: str
    name: str
    scene: str | None
    source: bool
    sound: bool
    send: str | None
    start: bool


def set_up(wanted: SetUp) -> None:
    """Has OBS do what is wanted. Raises ``UsageError`` or ``StreamFXError``."""
    session = fetch_session(wanted.server, wanted.session, os.environ.get("STREAMFX_TOKEN", "").strip())
    asyncio.run(_set_up(wanted, session))


def remove(obs: str, name: str) -> None:
    """Takes the source out of OBS. Raises ``UsageError`` or ``StreamFXError``."""

    async def do() -> None:
        async with connect(obs, _password()) as connected:
            await remove_source(connected, name)

    asyncio.run(do())
    _say(f"{name} is removed.")


async def _set_up(wanted: SetUp, session: WatchedSession) -> None:
    async with connect(wanted.obs, _password()) as obs:
        if wanted.source:
            _tell(wanted.name, await put_source(obs, session, wanted.name, wanted.scene, wanted.sound))
        if wanted.send:
            await send_to(obs, session, wanted.send)
            _say(f"OBS streams to session {session.id} by {wanted.send.upper()}.")
        if wanted.start:
            await start(obs)
            _say("Its stream runs.")


def _tell(name: str, placed: Placed) -> None:
    _say(f"{name} is {'now' if placed.made else 'still'} in the scene {placed.scene}, and fits the canvas.")
    if placed.kind == MEDIA:
        _say("This OBS has no Browser source, so it is a Media source, which is some seconds behind.")


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(escape(text))


def _password() -> str:
    return os.environ.get("OBS_WEBSOCKET_PASSWORD", "")
