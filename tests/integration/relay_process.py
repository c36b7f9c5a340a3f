"""``streamfx relay`` as systemd runs it: a process with a configuration file, told by signals, telling how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.integration.programs import ffmpeg, free_port
from tests.support import environment

KEY = "relay-k3y-of-its-publishers"


class Relay:
    """One relay, which may be started more than once at the same address. ``config``: its file."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.port, self.rtmp_port = free_port(), free_port()
        self.config = {"port": self.port, "rtmp_port": self.rtmp_port} | config
        self.file = folder / "relay.yaml"
        self.log = folder / "relay.log"
        self.ingest = f"rtmp://127.0.0.1:{self.rtmp_port}/live/{KEY}"
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10)
        self.told: list[str] = []
        """What systemd was told."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Runs it for the length of the block, from when it is ready."""
        self.file.write_text(yaml.safe_dump(self.config))
        with self._systemd() as address, self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "streamfx", "relay", "--config", str(self.file),
                env=environment(STREAMFX_RTMP_KEY=KEY, NOTIFY_SOCKET=address), stdin=asyncio.subprocess.DEVNULL,
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
            try:
                await self.until(lambda: "READY=1" in self.told, "being ready", process)
                yield process
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    @contextlib.contextmanager
    def _systemd(self) -> Iterator[str]:
        path = self.folder / "notify"
        path.unlink(missing_ok=True)
        self.told.clear()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path))
            listener.setblocking(False)
            loop.add_reader(listener, lambda: self.told.extend(listener.recv(4096).decode().splitlines()))
            try:
                yield str(path)
            finally:
                loop.remove_reader(listener)

    async def until(
        self, true: Callable[[], object], what: str, process: asyncio.subprocess.Process | None = None
    ) -> None:
        """Waits until something is so."""
        try:
            async with asyncio.timeout(20):
                while not true():
                    if process is not None:
                        assert process.returncode is None, self.log.read_text()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"waited for {what}; {self.log.read_text()}") from None

    async def said(self, text: str) -> None:
        """Waits until a line of its log holds ``text``."""
        await self.until(lambda: text in self.log.read_text(), text)

    async def session(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get("/sessions/live")).json()
        return found

    async def session_is(self, so: Callable[[dict[str, Any]], object]) -> None:
        """Waits until the session is as wanted."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(25):
                while not so(found := await self.session()):  # noqa: ASYNC110 - it is asked over HTTP
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"the session stayed {found}; {self.log.read_text()}") from None

    async def live(self, count: int) -> None:
        """Waits until so many targets are there and all are live."""
        await self.session_is(lambda found: [row["state"] for row in found["outputs"]] == ["live"] * count)

    async def reload(self, process: asyncio.subprocess.Process, text: str = "") -> None:
        """Has it read ``config`` again, or ``text`` in place of it, and waits until it has."""
        self.file.write_text(text or yaml.safe_dump(self.config))
        self.told.clear()
        process.send_signal(signal.SIGHUP)
        await self.until(lambda: "READY=1" in self.told, "the reload", process)


@contextlib.asynccontextmanager
async def publishing_again_and_again(url: str, ended: list[float]) -> AsyncIterator[None]:
    """FFmpeg publishing, started again a quarter of a second after it ended, as OBS does; ``ended`` gets the times."""

    async def publish() -> None:
        while True:
            async with ffmpeg(url) as publisher:
                await publisher.wait()
            ended.append(time.monotonic())
            await asyncio.sleep(0.25)

    task = asyncio.create_task(publish())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def longest_gap(times: Sequence[float]) -> float:
    """Seconds between neighbours, at most."""
    return max(after - before for before, after in pairwise(times))
