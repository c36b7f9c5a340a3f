"""Holds one filter and runs blocks through it: the same in the worker process and in an inline thread."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streamfx.core.errors import FilterError, StreamFXError, redact
from streamfx.core.frames import AUDIO_CHANNELS, AUDIO_RATE
from streamfx.filters.base import LONGEST_SOUND, Block, Context, Filter, Params
from streamfx.filters.registry import load
from streamfx.filters.resize import resize_block, working_size

MOST_IN_FLIGHT = 128
"""Frames by which a filter's output may be behind its input."""

_MOST_NOTES, _LONGEST_NOTE = 32, 1000


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """Which filter, at what frame size. ``target``: ``module:Class``. ``size``: (width, height) of the frames going
    in and coming out. ``fps``: nominal. ``threads``: CPU threads for it. ``params``: its parameters as JSON values.
    ``sound``: whether blocks bring sound. ``live``: whether they come in real time."""

    target: str
    size: tuple[int, int]
    fps: float
    threads: int
    params: dict[str, Any]
    sound: bool = False
    live: bool = True

    @property
    def sound_bytes(self) -> int:
        """Shared memory that the sound of a block takes at most."""
        return int(LONGEST_SOUND * AUDIO_RATE) * AUDIO_CHANNELS * 4 if self.sound else 0


class FilterHost:
    """A filter, set up. Blocks go in and out at the frame size whatever size the filter works at."""

    def __init__(self, spec: FilterSpec) -> None:
        """Loads and sets up the filter; may take seconds. Raises ``FilterError`` with one sentence."""
        self._spec = spec
        kind = load(spec.target)
        self._filter: Filter[Any] = kind()
        self._info = kind.info
        self._params: Params = kind.params_type.model_validate(spec.params)
        self._given: deque[float] = deque(maxlen=MOST_IN_FLIGHT)
        self._notes: deque[str] = deque(maxlen=_MOST_NOTES)
        context = Context(
            size=working_size(spec.size, self._info.sizes, 1.0),
            fps=spec.fps,
            threads=spec.threads,
            live=spec.live,
            logger=logging.getLogger(f"streamfx.filter.{kind.name}"),
            tell=self._notes.append,
        )
        try:
            self._filter.setup(context, self._params)
        except StreamFXError as error:
            raise FilterError(f"filter {kind.name!r} cannot be set up: {error}") from error
        except Exception as error:
            raise FilterError(f"filter {kind.name!r} cannot be set up: {type(error).__name__}: {error}") from error

    def configure(self, params: dict[str, Any]) -> None:
        """Takes other parameters from the next block on."""
        self._params = type(self._params).model_validate(params)

    def notes(self) -> list[str]:
        """What the filter has said since the last call."""
        found = []
        while self._notes:
            found.append(redact(self._notes.popleft())[:_LONGEST_NOTE])
        return found

    def reset(self) -> None:
        self._given.clear()
        self._filter.reset()

    def run(self, block: Block, scale: float) -> Block:
        """Filters a block at ``scale`` of the filter's working size, per side.

        Returns the pictures the filter gives now, ``(N, H, W, 3) uint8`` at the frame size with N up to the number it
        was given, and their ``pts``. Raises ``FilterError`` naming the filter if it fails or returns something else
        than was agreed; ``MemoryError`` passes through.
        """
        frames = block.frames
        name = self._filter.name
        self._given.extend(block.pts)
        small = resize_block(frames, working_size(self._spec.size, self._info.sizes, scale)).view()
        small.flags.writeable = False
        try:
            answer = self._filter.process(replace(block, video=small), self._params)
            result, pts = answer.video, answer.pts
        except (MemoryError, FilterError):
            raise
        except Exception as error:
            raise FilterError(f"filter {name!r} failed: {type(error).__name__}: {error}") from error
        if result is None and not pts:
            return block.with_video(np.empty((0, *frames.shape[1:]), np.uint8), ())
        if not isinstance(result, np.ndarray) or result.dtype != np.uint8 or result.ndim != 4 or result.shape[3] != 3:
            shape = f"{result.dtype} {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
            raise FilterError(f"filter {name!r} returned {shape}; it must return uint8 frames of shape (F, H, W, 3)")
        self._check_moments(len(result), block, pts)
        return block.with_video(resize_block(result, self._spec.size), pts)

    def _check_moments(self, count: int, block: Block, pts: tuple[float, ...]) -> None:
        """Results are of frames that were given."""
        name = self._filter.name
        if count > len(block.frames):
            raise FilterError(
                f"filter {name!r} returned {count} frames for {len(block.frames)}; it may give fewer only"
            )
        if count != len(pts):
            raise FilterError(f"filter {name!r} returned {count} frames with {len(pts)} pts; each frame needs its own")
        for moment in pts:
            if moment not in self._given:
                raise FilterError(
                    f"filter {name!r} returned a frame for pts {moment:g}, which it was not given of late"
                )

    def close(self) -> None:
        self._filter.close()
