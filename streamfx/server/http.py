"""What all routes need of the server, and how they find it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from streamfx.server.live_session import LiveSession
from streamfx.server.manager import RTMP_APP, Manager
from streamfx.server.problems import ProblemError


def manager_of(request: Request) -> Manager:
    """The manager of the application that serves this request."""
    manager = request.app.state.manager
    assert isinstance(manager, Manager)
    return manager


TheManager = Annotated[Manager, Depends(manager_of)]


def session_of(manager: TheManager, session_id: Annotated[str, Path(max_length=64)]) -> LiveSession:
    """The session that the path names. Raises ``ProblemError`` 404."""
    session = manager.get(session_id)
    if session is None:
        raise ProblemError(404, f"there is no session {session_id[:40]!r}; GET /sessions lists them")
    return session


TheSession = Annotated[LiveSession, Depends(session_of)]


def describe(session: LiveSession, manager: Manager, host: str) -> dict[str, Any]:
    """A session with its addresses. ``host``: the name the caller uses for this server."""
    rtmp = None
    if session.config.published and manager.rtmp_port is not None:
        rtmp = {"url": f"rtmp://{host}:{manager.rtmp_port}/{RTMP_APP}", "key": session.rtmp_key}
    return session.describe() | {
        "ingest": {"whip": f"/whip/{session.id}" if session.config.published else None, "rtmp": rtmp},
        "play": {
            "whep": f"/whep/{session.id}",
            "view": f"/view/{session.id}",
            "hls": f"/sessions/{session.id}/hls/index.m3u8",
        },
        "ice_servers": [server.as_browser_dict() for server in manager.config.webrtc.ice_servers],
    }


def host_of(request: Request) -> str:
    """The host name by which the caller reached us."""
    host = request.url.hostname or "127.0.0.1"
    return f"[{host}]" if ":" in host else host
