"""The child's side: messages from and to the stream that started it."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO

_PATIENCE = 5.0
"""Seconds a child may still work after its parent has closed the line."""


class Parent:
    """The line to the parent. Whatever else prints to stdout in this process goes to stderr instead,
    so that a plugin's ``print`` cannot garble the messages."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._outbox: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        source = os.fdopen(os.dup(0), "rb")
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device, not a path
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._listen, args=(source,), name="parent-line", daemon=True).start()

    def _listen(self, source: BinaryIO) -> None:
        for line in source:
            message = json.loads(line)
            if "data_size" in message:
                message["data"] = source.read(message.pop("data_size"))
            self._inbox.put(message)
        self._inbox.put(None)
        # The parent is done with us or dead. A call that never returns must not make us an orphan.
        timer = threading.Timer(_PATIENCE, os._exit, args=(1,))
        timer.daemon = True
        timer.start()

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next message; blocks. None when there will be no more: finish and leave. Raises ``TimeoutError`` after
        ``timeout`` seconds."""
        try:
            return self._inbox.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None

    def send(self, data: bytes = b"", **message: Any) -> None:
        """Sends one message, with bytes after it that it tells the number of; a parent that is gone is noticed by
        ``receive``."""
        try:
            self._outbox.write(json.dumps(message, separators=(",", ":")).encode() + b"\n" + data)
        except BrokenPipeError:
            self._inbox.put(None)
