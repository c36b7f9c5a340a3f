"""The targets of a stream as a table that changes in place: how each fares at present."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from rich.table import Table
from rich.text import Text

STATE_STYLE = {
    "live": "green",
    "waiting": "dim",
    "connecting": "yellow",
    "retrying": "yellow",
    "failed": "red",
    "closed": "dim",
}
_WINDOW = 3.0
"""Seconds over which the bitrate is taken."""


def names_of(rows: list[dict[str, Any]]) -> list[str]:
    """What outputs are called, from their statistics or descriptions; with their ids where two look the same."""
    names = [str(row.get("output") or row["url"]) for row in rows]
    counts = Counter(names)
    return [f"{name} #{row['id']}" if counts[name] > 1 else name for name, row in zip(names, rows, strict=True)]


class Targets:
    """Remembers what one look at the outputs cannot tell: bitrates, and errors that are over."""

    def __init__(self) -> None:
        self._bytes: dict[int, deque[tuple[float, int]]] = {}
        self._errors: dict[int, str] = {}

    def table(self, rows: list[dict[str, Any]]) -> Table:
        """One line for each output. ``rows``: their statistics, with their ids."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        table.add_column("target", no_wrap=True, max_width=24)
        table.add_column("state", no_wrap=True)
        for column in ("kbit/s", "sent", "dropped", "reconnects"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("last error", no_wrap=True, ratio=1)
        now = time.monotonic()
        for name, row in zip(names_of(rows), rows, strict=True):
            if row["error"]:
                self._errors[row["id"]] = row["error"]
            table.add_row(
                Text(name),
                Text(row["state"], style=STATE_STYLE.get(row["state"], "")),
                f"{self._kbps(row, now):.0f}",
                str(row["sent"]),
                str(row["dropped"]),
                str(row["reconnects"]),
                Text(self._errors.get(row["id"], ""), style="red" if row["error"] else "dim"),
            )
        return table

    def _kbps(self, row: dict[str, Any], now: float) -> float:
        seen = self._bytes.setdefault(row["id"], deque())
        if seen and row["bytes"] < seen[-1][1]:
            seen.clear()  # another stream's count
        seen.append((now, row["bytes"]))
        while now - seen[0][0] > _WINDOW and len(seen) > 2:
            seen.popleft()
        (then, before), (_, after) = seen[0], seen[-1]
        return 8e-3 * (after - before) / (now - then) if now > then else 0.0
