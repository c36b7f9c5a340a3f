"""What filters that run by engines share: the parameter ``engine``, and ``streamfx compile``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamfx.core.errors import UsageError
from streamfx.filters import Context

if TYPE_CHECKING:
    from streamfx.engines.build import Frames, Order

ENGINE = (
    "what runs the networks: eager (torch), auto (the quickest by measurement), or one by name, as openvino-bf16, or "
    "compile-fp16 on a GPU; built beside the stream, which takes it over when it is ready"
)


def check_engine(engine: str, device: str) -> None:
    """Before anything is loaded. Raises ``UsageError`` for one that there is nothing to build for, that does not exist,
    that does not run on ``device``, or that is not installed."""
    from streamfx.engines.build import candidates
    from streamfx.engines.recipe import Recipe

    if engine == "eager":
        raise UsageError("eager needs no engines; choose auto, or one by name, as openvino")
    candidates(engine, Recipe("eager"), device)


def made_ahead(order: Order, context: Context, frames: Frames = ()) -> None:
    """Builds engines, and tells what came of it. Takes minutes. Raises ``UsageError`` if none can be made."""
    from streamfx.engines.build import build
    from streamfx.engines.cache import EngineCache

    for line in build(order, EngineCache(), frames).told:
        context.tell(line)
