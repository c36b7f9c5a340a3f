"""Runs the server until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import uvicorn

from streamfx.core.errors import UsageError
from streamfx.core.signals import on_stop_signal
from streamfx.media import hardware
from streamfx.media.encoders import AUTO
from streamfx.server import systemd
from streamfx.server.app import create_app, guarded
from streamfx.server.manager import Manager
from streamfx.server.reload import reload_on_signal
from streamfx.server.settings import ServeConfig

logger = logging.getLogger(__name__)

_SHUTDOWN_GRACE = 3
_BACKLOG = 256
_MOST_CONNECTIONS = 512


class _Server(uvicorn.Server):
    """uvicorn, but signals are ours. ``ready`` and ``stopping`` tell where it is."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()

    async def serve_to_the_end(self, listener: socket.socket) -> None:
        """Serves; however that ends, nobody waits for it any longer."""
        try:
            await self.serve(sockets=[listener])
        finally:
            self.stopping.set()
            self.ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    config: ServeConfig,
    on_ready: Callable[[str, Manager], None],
    *,
    reread: Callable[[], ServeConfig] | None = None,
    watch: Callable[[Manager], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM: the first ends it in good order, within ``drain_s``; a second one at once.

    ``on_ready`` is told the page's address once everything listens. ``watch`` runs beside until the end. SIGHUP calls
    ``reread`` and applies what can be (``server.reload``). Raises ``UsageError`` or ``SourceError`` for what keeps it
    from starting.
    """
    for name in sorted({config.encode_of(session).encoder for session in config.all_sessions().values()} - {AUTO}):
        await hardware.pick(name, wait=True)
    manager = Manager(config)
    app = create_app(manager)
    listener = _listen(config)
    with listener:
        settings = uvicorn.Config(
            guarded(app, config),
            # The guards hide the application, and with it its lifespan.
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_SHUTDOWN_GRACE,
            timeout_keep_alive=15,
            h11_max_incomplete_event_size=65_536,
            limit_concurrency=_MOST_CONNECTIONS,
            ssl_certfile=config.tls_cert,
            ssl_keyfile=config.tls_key,
        )
        _load_tls(settings)
        server = _Server(settings)

        def stop(again: bool) -> None:
            server.stopping.set()
            if again:
                server.force_exit = True
                manager.abort()

        async with manager.running():
            with on_stop_signal(stop):
                beside: list[Coroutine[Any, Any, None]] = [systemd.keep_alive()]
                if watch is not None:
                    beside.append(watch(manager))
                if reread is not None:
                    beside.append(reload_on_signal(manager, reread))
                await _serve(server, listener, manager, lambda: on_ready(_address(config, listener), manager), beside)


async def _serve(
    server: _Server,
    listener: socket.socket,
    manager: Manager,
    on_ready: Callable[[], None],
    beside: Sequence[Coroutine[Any, Any, None]],
) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in beside]
        group.create_task(server.serve_to_the_end(listener), name="http")
        await server.ready.wait()
        if not server.stopping.is_set():
            on_ready()
            systemd.tell("READY=1")
        await server.stopping.wait()
        systemd.tell("STOPPING=1")
        await manager.drain(manager.config.drain_s)
        server.should_exit = True
        for task in tasks:
            task.cancel()


def _listen(config: ServeConfig) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError:
        raise UsageError(f"cannot listen on {config.host}; give an address of this machine") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except PermissionError:
        listener.close()
        raise UsageError(f"port {config.port} may not be used without more rights; choose one above 1023") from None
    except OSError:
        listener.close()
        raise UsageError(
            f"cannot listen on {config.host} port {config.port}; another program uses it, or it is no address of this "
            "machine: choose another with --port or --host"
        ) from None
    return listener


def _load_tls(settings: uvicorn.Config) -> None:
    try:
        settings.load()
    except (ssl.SSLError, OSError) as error:
        raise UsageError(f"the TLS certificate or key cannot be used ({error}); give PEM files that match") from None


def _address(config: ServeConfig, listener: socket.socket) -> str:
    scheme = "https" if config.tls_cert else "http"
    host = config.host if config.host not in ("0.0.0.0", "::") else socket.gethostname()
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/"
