"""OBS's own stream, sent to a session."""

from __future__ import annotations

import asyncio
from typing import Any

from streamfx.core.errors import StreamFXError, UsageError
from streamfx.obs.connection import Obs, RefusedError
from streamfx.obs.session import WatchedSession

_OUTPUT_RUNNING = 500
_START_SECONDS = 10.0
_WHIP_SINCE = 30


async def send_to(obs: Obs, session: WatchedSession, protocol: str) -> None:
    """Sets the service to which OBS streams, by ``rtmp`` or ``whip``. Raises ``UsageError`` or ``StreamFXError``."""
    kind, settings = _rtmp(session) if protocol == "rtmp" else await _whip(obs, session)
    present = await obs.ask("GetStreamServiceSettings")
    if present["streamServiceType"] == kind and present["streamServiceSettings"].items() >= settings.items():
        return
    if (await obs.ask("GetStreamStatus"))["outputActive"]:
        raise StreamFXError("OBS streams to somewhere else now; stop that first")
    await obs.ask("SetStreamServiceSettings", streamServiceType=kind, streamServiceSettings=settings)


async def start(obs: Obs) -> None:
    """Starts the stream, and waits until it runs. Raises ``StreamFXError``."""
    if not (await obs.ask("GetStreamStatus"))["outputActive"]:
        try:
            await obs.ask("StartStream")
        except RefusedError as refused:
            if refused.code != _OUTPUT_RUNNING:
                raise
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not (await obs.ask("GetStreamStatus"))["outputActive"]:  # noqa: ASYNC110 - OBS is asked
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise StreamFXError("OBS did not get its stream to run; look at what it says") from None


def _rtmp(session: WatchedSession) -> tuple[str, dict[str, Any]]:
    if session.rtmp is None:
        raise UsageError(
            f"session {session.id!r} takes no publisher by RTMP: it has a source of its own, or RTMP is off"
        )
    server, key = session.rtmp
    return "rtmp_custom", {"server": server, "key": key, "use_auth": False}


async def _whip(obs: Obs, session: WatchedSession) -> tuple[str, dict[str, Any]]:
    if session.whip is None:
        raise UsageError(f"session {session.id!r} takes no publisher: it has a source of its own")
    version = str((await obs.ask("GetVersion"))["obsVersion"])
    if int(version.partition(".")[0]) < _WHIP_SINCE:
        raise UsageError(f"OBS {version} has no WHIP, which came with OBS {_WHIP_SINCE}; use --send rtmp")
    return "whip_custom", {"server": session.whip, "bearer_token": session.token}
