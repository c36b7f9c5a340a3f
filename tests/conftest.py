"""What holds for every test: it leaves nothing running behind."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
    # Kernels run in Triton's interpreter; it wants to know before anything imports triton, as some libraries do.
    os.environ["TRITON_INTERPRET"] = "1"

_GRACE = 2.0
"""Seconds that what is ending may take to end."""


def _tasks() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def _threads() -> set[threading.Thread]:
    """All but those of an event loop's own executor, which end with the loop."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith(("asyncio_", "AnyIO"))}


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _alive(processes: set[psutil.Process]) -> set[psutil.Process]:
    alive = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.add(process)
    return alive


@pytest.fixture
async def _no_stray_tasks() -> AsyncIterator[None]:
    before = _tasks()
    yield
    for _ in range(int(_GRACE / 0.01)):
        if not (stray := _tasks() - before):
            return
        await asyncio.sleep(0.01)
    assert not stray, f"tasks left behind: {sorted(task.get_name() for task in stray)}"


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves asyncio tasks, threads or child processes behind."""
    threads, children = _threads(), _children()
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_stray_tasks")
    yield
    end = time.monotonic() + _GRACE
    while True:
        strays = {thread for thread in _threads() - threads if thread.is_alive()}
        orphans = _alive(_children() - children)
        if not (strays or orphans) or time.monotonic() > end:
            break
        time.sleep(0.01)
    for orphan in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            orphan.kill()
    assert not strays, f"threads left behind: {sorted(thread.name for thread in strays)}"
    assert not orphans, f"processes left behind: {sorted(orphan.pid for orphan in orphans)}"
