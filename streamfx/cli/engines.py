"""``streamfx compile`` and ``streamfx engines``: making engines ahead, and what is kept of them."""

from __future__ import annotations

import logging
import time

from rich.console import Console
from rich.table import Table

from streamfx.core.errors import FilterError, StreamFXError, UsageError
from streamfx.filters.base import Context
from streamfx.filters.registry import lacking, load, parse_params, target_of
from streamfx.media.url import parse_size


def compile_for(name: str, values: dict[str, str], size: str, threads: int) -> None:
    """Raises ``UsageError`` for what cannot be made, ``FilterError`` for what failed."""
    kind = load(target_of(name))
    params = parse_params(kind, values)
    hint = lacking(kind)
    if hint:
        raise UsageError(f"filter {kind.name!r} cannot run here: {hint}")
    if not 1 <= threads <= 256:
        raise UsageError(f"--threads {threads} is not possible; give a number from 1 to 256")
    console = Console(stderr=True)

    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    logger = logging.getLogger(f"streamfx.filter.{kind.name}")
    try:
        with console.status("making engines; this takes minutes …"):
            kind().compile(Context(parse_size(size), threads=threads, logger=logger, tell=tell), params)
    except StreamFXError:
        raise
    except Exception as error:
        raise FilterError(f"the engines could not be made: {type(error).__name__}: {error}") from error


def show_engines() -> None:
    from streamfx.engines.cache import EngineCache

    cache = EngineCache()
    entries = cache.entries()
    console = Console()
    if entries:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("key", "part", "engine", "size", "last used"):
            table.add_column(column, no_wrap=True, justify="right" if column == "size" else "left")
        for entry in entries:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            table.add_row(entry.key[:12], entry.part, entry.recipe, f"{entry.size / 1e6:.1f} MB", used)
        console.print(table)
    total = sum(entry.size for entry in entries) / 1e6
    console.print(f"{len(entries)} in {cache.folder}, {total:.1f} MB", highlight=False, soft_wrap=True)


def remove(keys: list[str], everything: bool) -> None:
    """Raises ``UsageError`` for a key that there is not."""
    from streamfx.engines.cache import EngineCache

    if bool(keys) == everything:
        raise UsageError("say which engines to remove: beginnings of keys as streamfx engines ls shows them, or --all")
    cache = EngineCache()
    if everything:
        Console().print(f"{cache.clear()} removed")
    for key in keys:
        cache.remove(key)
