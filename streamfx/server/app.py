"""The web application: routes, page, guards."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

from streamfx import __version__
from streamfx.server import metrics, routes_hls, routes_media, routes_sessions
from streamfx.server.guard import GuardRules, guard
from streamfx.server.manager import Manager
from streamfx.server.problems import install
from streamfx.server.settings import ServeConfig

STATIC = Path(__file__).parent / "static"

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def create_app(manager: Manager) -> FastAPI:
    """The application without its guards. Entering its lifespan starts the sessions."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with manager.running():
            yield

    app = FastAPI(
        title="streamfx",
        version=__version__,
        description="Live AI video filters: publish by WHIP or RTMP, watch by WHEP, change everything while it runs.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.manager = manager
    install(app)
    app.include_router(routes_sessions.router)
    app.include_router(routes_hls.router)
    app.include_router(metrics.router)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/view/{session_id}", include_in_schema=False)
    async def player(session_id: str) -> FileResponse:
        return FileResponse(STATIC / "view.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    # Last: its paths begin with a parameter.
    app.include_router(routes_media.router)
    return app


def guarded(app: FastAPI, config: ServeConfig) -> ASGIApp:
    """The application behind its guards, as it is to be served."""
    rules = GuardRules(
        token=config.secret,
        trusted_hosts=None if config.secret else _LOOPBACK | {config.host},
        public_paths=is_public,
        player_paths=is_for_players,
        max_body=config.limits.body_bytes,
        rate=config.limits.requests_per_second,
        burst=config.limits.requests_burst,
        cors_origins=frozenset(config.cors_origins),
        tls=config.tls_cert is not None,
    )
    return guard(app, rules)


def is_public(path: str) -> bool:
    """What needs no token: whether we are well, and the page itself (which holds nothing, and asks for the token)."""
    return path in ("/", "/healthz", "/readyz", "/favicon.ico") or path.startswith(("/static/", "/view/"))


def is_for_players(path: str) -> bool:
    """What video players ask for: they can send a password (of the URL), but no header that they are told."""
    return path.startswith("/sessions/") and "/hls/" in path
