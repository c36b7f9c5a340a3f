"""The stream's side of a child process: start it, talk to it in JSON lines, end it for certain."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from streamfx.core.errors import redact

logger = logging.getLogger(__name__)

_LINE_LIMIT = 1 << 20
_STDERR_LINES = 30
_CHUNK = 1 << 14
_LONGEST_NOTE = 500
_REAP_TIMEOUT = 2.0


class Child:
    """A running Python child. Messages are JSON objects, one a line, on its stdin and stdout; pixels never
    travel here. What it prints to stderr is kept (the last lines) for the error report."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.name = name
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def last_words(self) -> str:
        """The last line it printed to stderr, or an empty string."""
        return self._stderr[-1] if self._stderr else ""

    def send(self, message: dict[str, Any], data: bytes = b"") -> None:
        """Sends without waiting; ``data`` is the other side's ``message["data"]``. The caller bounds what is under way
        (one request, or one a free slot); a child that has died takes nothing and raises nothing: ``receive`` tells."""
        if not self._stdin.is_closing():
            told = message | {"data_size": len(data)} if data else message
            self._stdin.write(json.dumps(told, separators=(",", ":")).encode() + b"\n" + data)

    async def receive(self) -> dict[str, Any] | None:
        """The next message, or None when the child has closed its side (it is ending or dead)."""
        try:
            line = await self._stdout.readline()
        except (ConnectionError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    async def read(self, size: int) -> bytes | None:
        """The ``size`` bytes that follow a message which promised them, or None when the child has closed its side."""
        try:
            return await self._stdout.readexactly(size)
        except (ConnectionError, asyncio.IncompleteReadError):
            return None

    def end_input(self) -> None:
        """Closes its stdin once all was sent, which asks it to finish and leave."""
        self._stdin.close()

    async def finish(self, timeout: float) -> int:
        """Closes its stdin, waits ``timeout`` seconds, then kills it. Returns its exit status (a signal: negative)."""
        self.end_input()
        try:
            async with asyncio.timeout(timeout):
                while await self.receive() is not None:
                    pass
                return await self._process.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """Ends it now. Returns its exit status."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                # It leads a session of its own: what it started goes with it, and lets go of its pipes.
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self._process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_TIMEOUT):
                await self._process.wait()
        return self._process.returncode if self._process.returncode is not None else -9

    async def keep_stderr(self) -> None:
        assert self._process.stderr is not None
        line = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await self._process.stderr.read(_CHUNK):
                *lines, line = (line + chunk).split(b"\n")
                # A program may write for ever without ending a line.
                line = line[-_CHUNK:]
                for text in lines:
                    self._note(text)
        self._note(line)

    def _note(self, line: bytes) -> None:
        text = redact(line.decode(errors="replace").rstrip())[-_LONGEST_NOTE:]
        if text:
            self._stderr.append(text)
            logger.debug("child=%s pid=%d says=%r", self.name, self.pid, text)

    def close_pipes(self) -> None:
        """Lets go of its pipes, which a grandchild that got away may still hold open."""
        transport = getattr(self._process, "_transport", None)
        if transport is not None:
            transport.close()


@contextlib.asynccontextmanager
async def spawn(module: str, name: str) -> AsyncIterator[Child]:
    """Runs ``python -m module`` for the length of the block; it is dead and reaped afterwards, on every path.

    The child imports from the same places as we do, in a session of its own, so that Ctrl-C in the terminal
    reaches us alone and we decide how it ends.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT,
        env=environment,
        start_new_session=True,
    )
    child = Child(name, process)
    listener = asyncio.create_task(child.keep_stderr(), name=f"stderr of {name}")
    try:
        yield child
    finally:
        # Shielded: a second cancellation must not leave a process behind.
        await asyncio.shield(_bury(child, listener))


async def _bury(child: Child, listener: asyncio.Task[None]) -> None:
    await child.kill()
    # A grandchild may hold the pipe open for ever: half a second is for the last words only.
    await asyncio.wait([listener], timeout=0.5)
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    child.close_pipes()
