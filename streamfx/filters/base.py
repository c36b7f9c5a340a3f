"""The contract with plugin writers.

A filter is a class with typed parameters and four methods. It knows nothing of sockets, asyncio,
deadlines or processes: it gets a block of frames and returns a block of frames, as fast as it can.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from streamfx.core.errors import UsageError

Lane = Literal["video", "audio"]

LONGEST_SOUND = 8.0
"""Seconds of sound that a block brings at most."""


class Params(BaseModel):
    """Base of a filter's parameters.

    Every field gets a default, bounds and a description: the command line's flags, the validation and
    the web page's controls are made from them. Instances are immutable; a change is a new instance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


def at_setup(default: Any, description: str, **bounds: Any) -> Any:
    """A field of ``Params`` that is read when the filter is set up, like a checkpoint's name. It cannot be changed
    while the filter runs, nor by who merely uses a server: it may name files and networks."""
    return Field(default, description=description, json_schema_extra={"setup": True}, **bounds)


@dataclass(frozen=True, slots=True)
class FilterInfo:
    """What a filter takes and gives, read before it is set up.

    ``takes``: ``audio`` for one that is driven by sound: its blocks bring the sound besides the pictures, which are
    blank, 25 a second, if the source has none. ``lookahead``: seconds of what comes later that it waits for before it
    gives a picture; they are allowed for besides the stream's budget. ``block``: frames it wants per call. ``blocks``:
    all numbers of frames it takes per call, if there are others besides; a live stream then takes the one that suits
    its frame rate. ``sizes``: (width, height) pairs it can work
    at, best first; empty means any. The pipeline resizes to the nearest one and back again. ``quality_levels``: how
    many levels of ``Block.quality`` it tells apart; 1 means it has no cheaper way of its own. ``min_scale``: the
    smallest share of its working size, per side, at which its result is still worth showing; 1 forbids the pipeline to
    shrink its input under pressure. ``needs``: packages that must be there besides, by the names they are imported by;
    ``install``: the command that adds them.
    """

    summary: str = ""
    takes: Lane = "video"
    gives: Lane = "video"
    lookahead: float = 0.0
    block: int = 1
    blocks: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    quality_levels: int = 1
    min_scale: float = 0.5
    needs: tuple[str, ...] = ()
    install: str = ""

    def __post_init__(self) -> None:
        if self.blocks and (min(self.blocks) < 1 or self.block not in self.blocks):
            raise ValueError("FilterInfo.blocks are numbers from 1 on, and block is one of them")
        if self.block < 1 or self.quality_levels < 1 or not 0 < self.min_scale <= 1 or self.lookahead < 0:
            raise ValueError("FilterInfo needs block, quality_levels >= 1, 0 < min_scale <= 1 and lookahead >= 0")

    @property
    def largest_block(self) -> int:
        """The most frames of a call."""
        return max(self.blocks, default=self.block)


@dataclass(frozen=True, slots=True)
class Block:
    """What a filter is given, and what it returns.

    ``video``: ``(F, H, W, 3) uint8`` RGB, or None. ``pts``: seconds on the media timeline, one a frame. ``audio``: for
    filters that take it, ``(2, N) float32`` in [-1, 1] at 48 kHz: all that has come since the call before, at most the
    last ``LONGEST_SOUND`` seconds; it may reach beyond these frames, or not yet to them. None if nothing has come.
    ``audio_pts``: seconds of its first sample. ``quality``: 0 is full; each step up to
    ``FilterInfo.quality_levels - 1`` asks for a cheaper rendering.

    The arrays given to a filter are valid only during the call, and read-only: copy what is to be kept.
    """

    video: NDArray[np.uint8] | None = None
    audio: NDArray[np.float32] | None = None
    pts: tuple[float, ...] = ()
    quality: int = 0
    audio_pts: float = 0.0

    @property
    def frames(self) -> NDArray[np.uint8]:
        """The video, for filters that take video. Raises ``ValueError`` if there is none."""
        if self.video is None:
            raise ValueError("this block has no video")
        return self.video

    def with_video(self, video: NDArray[np.uint8], pts: tuple[float, ...] | None = None) -> Block:
        """Other pictures of the same moments, or of those at ``pts``: ``(F, H', W', 3) uint8`` RGB."""
        return replace(self, video=video, pts=self.pts if pts is None else pts)


@dataclass(frozen=True, slots=True)
class Context:
    """What a filter is told at set-up. ``size``: (width, height) of the frames it will be given; under pressure
    they come smaller, down to ``FilterInfo.min_scale`` of it or another of ``FilterInfo.sizes``.
    ``fps``: nominal frames per second, 0 if unknown. ``live``: whether frames come in real time, so that some may be
    left out. ``threads``: CPU threads it should keep to. ``tell``: a sentence
    for whoever watches the stream, said from any thread, rarely."""

    size: tuple[int, int]
    fps: float = 0.0
    threads: int = 1
    live: bool = True
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("streamfx.filter"))
    tell: Callable[[str], None] = field(default=lambda text: logging.getLogger("streamfx.filter").info("%s", text))


P = TypeVar("P", bound=Params)


class Filter(Generic[P]):
    """A live filter. Subclass it as ``Filter[MyParams]``, give it a ``name`` and an ``info``, implement ``process``.

    All methods are called from one thread of the worker process, one after the other, and may block.
    An exception from ``process`` costs one block; the stream goes on.
    """

    name: ClassVar[str] = ""
    info: ClassVar[FilterInfo] = FilterInfo()
    params_type: ClassVar[type[Params]] = Params

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            if isinstance(get_origin(base), type) and issubclass(get_origin(base), Filter):
                (argument,) = get_args(base)
                if isinstance(argument, type) and issubclass(argument, Params):
                    cls.params_type = argument

    def setup(self, context: Context, params: P) -> None:
        """Loads weights and warms up; may take seconds. Called once, before the first ``process``."""

    def compile(self, context: Context, params: P) -> None:
        """Makes ahead what would be made beside a running stream: engines. May take minutes; ``setup`` is not called
        before. Raises ``UsageError`` if there is nothing to make for these parameters."""
        raise UsageError(f"filter {self.name!r} has no engines to be made ahead")

    def process(self, block: Block, params: P) -> Block:
        """Returns filtered pictures, of any size, with the ``pts`` of the frames they belong to.

        Mostly those are the frames of ``block``. A filter that works on several frames at once may be late: then it
        gives earlier ones, at most as many as it was given; ``Block()`` if there are none yet. How late it is may
        change at any time. Frames it leaves out are not missed: the stream shows the one before.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Forgets what was kept from earlier frames: scene cut, stream restart."""

    def close(self) -> None:
        """Frees everything. Called once."""
