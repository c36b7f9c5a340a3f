"""``--dry-run``: is every target there, and does it take our key?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamfx.core.errors import StreamFXError, UsageError
from streamfx.media.base import OutputFormat
from streamfx.media.output import check_writable
from streamfx.media.platforms import fitted, trial_address
from streamfx.media.rtmp.trial import try_target
from streamfx.media.url import MediaUrl
from streamfx.pipeline.settings import SessionSettings

_USUAL = (1280, 720), Fraction(30)
"""Size and rate where those are the source's, which is not looked at."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """``good``: None if there is no way to try."""

    good: bool | None
    reason: str = ""
    seconds: float = 0.0


def try_outputs(sessions: Sequence[SessionSettings]) -> int:
    """Tries the outputs of all sessions at once, and prints how it went. Returns the exit code: 0 if all would do, else
    1. Raises ``UsageError`` if there are none."""
    outputs = [(url, settings) for settings in sessions for url in settings.outputs]
    if not outputs:
        raise UsageError("there is no target to try; name one with --to, or under `to:` in the configuration")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    verdicts = asyncio.run(_try_all(outputs))
    for (url, _), verdict in zip(outputs, verdicts, strict=True):
        table.add_row(
            Text(str(url), style="bold"),
            {True: Text("accepted", "green"), False: Text("refused", "red"), None: Text("not tried")}[verdict.good],
            f"{verdict.seconds:.1f} s",
            Text(verdict.reason, overflow="fold"),
        )
    Console(highlight=False).print(table)
    return 1 if any(verdict.good is False for verdict in verdicts) else 0


async def _try_all(outputs: Sequence[tuple[MediaUrl, SessionSettings]]) -> list[_Verdict]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_try(url, settings)) for url, settings in outputs]
    return [task.result() for task in tasks]


async def _try(url: MediaUrl, settings: SessionSettings) -> _Verdict:
    size, fps = settings.size or _USUAL[0], settings.fps or _USUAL[1]
    began = time.monotonic()
    try:
        fitted(url, OutputFormat(size, fps, audio=True, live=True, encode=settings.encode))
        if url.scheme == "file":
            check_writable(url)
        elif url.scheme in ("rtmp", "rtmps"):
            await try_target(trial_address(url))
        else:
            return _Verdict(None)
    except StreamFXError as error:
        return _Verdict(False, " ".join(str(error).split()), time.monotonic() - began)
    return _Verdict(True, "", time.monotonic() - began)
