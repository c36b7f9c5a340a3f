"""Tells systemd how it goes, where it asked to be told (``Type=notify``; the protocol of sd_notify)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time


def tell(*states: str) -> None:
    """Sends assignments such as ``READY=1``; without a listener, or with one that is gone, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.setblocking(False)
        speaker.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        speaker.send("\n".join(states).encode())


def tell_reloading() -> None:
    """That the configuration is read again; ``READY=1`` says when it is done."""
    tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


async def keep_alive() -> None:
    """Tells the watchdog, if there is one, that the event loop turns; for ever."""
    period = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    while period:
        tell("WATCHDOG=1")
        await asyncio.sleep(period / 2)
