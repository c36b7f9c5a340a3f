"""Ctrl-C, once and twice: no traceback, and the exit code that shells expect."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.browser import server
from tests.support import environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


async def run_for_a_while(tmp_path: Path, times: int) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamfx", "run", "testpattern://?size=160x96", str(tmp_path / "out.mkv"),
        env=environment(), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(20):
        while not (tmp_path / "out.mkv").exists():  # noqa: ASYNC110 - the file tells that it runs
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.05)
        _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_one_ends_a_run_in_good_order(tmp_path: Path) -> None:
    code, errors = await run_for_a_while(tmp_path, 1)
    assert code == 0
    assert "Traceback" not in errors


async def test_a_second_one_ends_it_at_once(tmp_path: Path) -> None:
    code, errors = await run_for_a_while(tmp_path, 2)
    # It may have been done before the second came; dying of the signal itself is 130 to a shell as well.
    assert code in (0, 130, -signal.SIGINT)
    assert "Traceback" not in errors


async def test_a_server_with_open_event_streams_ends_within_seconds() -> None:
    async with server() as running, running.http.stream("GET", "/sessions/live/events") as events:
        lines = events.aiter_lines()
        assert "session" in await anext(lines)
        began = asyncio.get_running_loop().time()
        running.process.send_signal(signal.SIGTERM)
        async for _ in lines:
            pass
        await asyncio.wait_for(running.process.wait(), 10)
        assert asyncio.get_running_loop().time() - began < 6
