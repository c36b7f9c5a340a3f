"""``streamfx run`` as a user runs it: a process, watched through its statistics file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

Stats = dict[str, Any]


class Running:
    """A running ``streamfx run``."""

    def __init__(self, process: asyncio.subprocess.Process, stats_file: Path) -> None:
        self.process = process
        self._stats_file = stats_file

    def stats(self) -> Stats:
        """Its latest statistics; at most a second old."""
        with contextlib.suppress(FileNotFoundError):
            stats: Stats = json.loads(self._stats_file.read_text())
            return stats
        return {"counters": {}, "outputs": [], "state": "", "source_state": ""}

    async def until(self, condition: Callable[[Stats], object], what: str, timeout: float = 20) -> Stats:
        """Waits until the statistics fulfil a condition."""
        try:
            async with asyncio.timeout(timeout):
                while not condition(self.stats()):
                    if self.process.returncode is not None:
                        said = await self.process.stderr.read() if self.process.stderr else b""
                        raise AssertionError(f"streamfx ended while waiting for: {what}; it said: {said.decode()}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"waited {timeout} s for: {what}; stats: {self.stats()}") from None
        return self.stats()

    async def frames(self, count: int, timeout: float = 30) -> Stats:
        """Waits for ``count`` more output frames."""
        goal = self.stats()["counters"].get("frames_out", 0) + count
        return await self.until(lambda s: s["counters"].get("frames_out", 0) >= goal, f"{goal} frames", timeout)

    async def stop(self) -> tuple[int, str]:
        """Ctrl-C. Returns the exit code and what was said on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(self.process.communicate(), 10)
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


@contextlib.asynccontextmanager
async def streamfx_run(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    """Runs ``streamfx run ARGUMENTS`` for the length of the block."""
    stats_file = folder / "stats.json"
    stats_file.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamfx", "run", *arguments, "--stats-json", str(stats_file),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | (environment or {}),
    )  # fmt: skip
    try:
        yield Running(process, stats_file)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
