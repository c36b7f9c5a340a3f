"""What one session is to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from streamfx.core.playout import GatePolicy
from streamfx.filters.base import Params
from streamfx.filters.registry import AnyFilter
from streamfx.media.base import EncodeSettings
from streamfx.media.url import MediaUrl


@dataclass(frozen=True, slots=True)
class FilterChoice:
    """A filter and its parameters. ``target``: ``module:Class``, what the worker process imports.
    ``inline``: run it in a thread of this process, for debugging. ``threads``: CPU threads it may use; None
    leaves a live stream's other cores to its encoders, and takes all from file to file."""

    target: str
    type: AnyFilter
    params: Params
    inline: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """``size``: (width, height) of the output, None for the source's. ``fps``: of the output, None for the source's.
    ``budget``: seconds from capture to output that a rendering may take. ``filter``: None relays the frames as they
    are."""

    source: MediaUrl
    outputs: tuple[MediaUrl, ...]
    filter: FilterChoice | None = None
    size: tuple[int, int] | None = None
    fps: Fraction | None = None
    budget: float = 0.25
    gate: GatePolicy = field(default_factory=GatePolicy)
    encode: EncodeSettings = field(default_factory=EncodeSettings)
