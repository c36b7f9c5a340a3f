"""Being asked to stop: Ctrl-C and SIGTERM, for programs that run an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def on_stop_signal(stop: Callable[[bool], None]) -> Iterator[None]:
    """Calls ``stop(again)`` in the loop for each signal during the block; ``again``: it is not the first.

    On Windows the loop knows no signals: there KeyboardInterrupt cancels the main task.
    """
    loop = asyncio.get_running_loop()
    count = 0

    def heard() -> None:
        nonlocal count
        count += 1
        stop(count > 1)

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, heard)
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
