"""What loading libraries raise, in words."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from streamfx.core.errors import UsageError

logger = logging.getLogger(__name__)

_PATHS = ("/", "./", "../", "~")


@contextlib.contextmanager
def explained(place: str, part: str) -> Iterator[None]:
    """Turns what is raised for a missing or broken ``part`` of the checkpoint at ``place`` into a ``UsageError`` of one
    sentence that says what to do."""
    from safetensors import SafetensorError

    if place.startswith(_PATHS) and not Path(place).suffix and not Path(place).exists():
        raise UsageError(f"{place} does not exist; give the folder of {part}, or its hub name")
    try:
        yield
    except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as error:
        logger.debug("place=%s part=%s", place, part, exc_info=True)
        if Path(place).exists():
            advice = "check that the folder is whole, or fetch the checkpoint again"
        else:
            advice = "check the name and the network, or give a folder with the checkpoint"
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UsageError(f"{place}: {part} cannot be loaded ({first}); {advice}") from error
