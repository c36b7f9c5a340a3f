"""``streamfx run``: one session with its display, its signals and its summary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from streamfx.cli.display import make_display, print_summary
from streamfx.cli.trial import try_outputs
from streamfx.config import RunConfig
from streamfx.core.errors import StreamFXError, UsageError
from streamfx.core.signals import on_stop_signal
from streamfx.media.url import MediaUrl
from streamfx.pipeline.session import Session

logger = logging.getLogger(__name__)

_REFRESH = 0.25
_STATS_EVERY = 1.0


def run_session(config: RunConfig) -> None:
    """Runs to the end and prints the summary. Raises ``StreamFXError``."""
    try:
        _run_to_the_end(config)
    except asyncio.CancelledError:  # the second Ctrl-C
        raise KeyboardInterrupt from None
    except StreamFXError as error:
        raise type(error)(config.without_secrets(str(error))) from error


def try_run(config: RunConfig) -> int:
    """Tries the outputs of a run without sending a picture. Returns the exit code. Raises ``StreamFXError``."""
    try:
        return try_outputs([config.session_settings()])
    except StreamFXError as error:
        raise type(error)(config.without_secrets(str(error))) from error


def _run_to_the_end(config: RunConfig) -> None:
    settings = config.session_settings()
    if config.stats_json is not None:
        _check_stats_file(config.stats_json, (settings.source, *settings.outputs))
    session = Session(settings)
    try:
        asyncio.run(_run(session, config.stats_json))
    finally:
        if session.info is not None:
            print_summary(session)


async def _run(session: Session, stats_json: Path | None) -> None:
    with _signals(session):
        async with _beside(_report(session, stats_json)):
            await session.run()


@contextlib.asynccontextmanager
async def _beside(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _report(session: Session, stats_json: Path | None) -> None:
    """Keeps the display and the statistics file up to date."""
    written = 0.0
    loop = asyncio.get_running_loop()
    with make_display(session) as display:
        try:
            while True:
                display.update()
                if stats_json is not None and loop.time() - written >= _STATS_EVERY:
                    written = loop.time()
                    await asyncio.to_thread(_write_stats, stats_json, session.stats())
                await asyncio.sleep(_REFRESH)
        finally:
            display.update()
            if stats_json is not None:
                _write_stats(stats_json, session.stats())


def _write_stats(path: Path, stats: dict[str, Any]) -> None:
    """Replaces the file in one go: a reader never sees half of it. A full disk must not end the stream."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        logger.warning("stats_json=%s cannot be written: %s", path, error.strerror)


def _check_stats_file(path: Path, places: Iterable[MediaUrl]) -> None:
    if any(url.scheme == "file" and os.path.realpath(url.path) == os.path.realpath(path) for url in places):
        raise UsageError(f"{path} is an input or output as well; choose another file for the statistics")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written; choose a file in a folder that exists and that you may write to")


@contextlib.contextmanager
def _signals(session: Session) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the session in good order; a second one at once."""
    task = asyncio.current_task()
    assert task is not None

    def stop(again: bool) -> None:
        if again:
            task.cancel()
        session.stop()

    with on_stop_signal(stop):
        yield
