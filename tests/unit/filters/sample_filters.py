"""Filters that behave, and filters that do not. Workers import them by name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Literal

import numpy as np
from pydantic import Field

from streamfx.filters.base import Block, Context, Filter, FilterInfo, Params

Trick = Literal[
    "none",
    "raise",
    "exit",
    "hang",
    "memory",
    "shape",
    "dtype",
    "count",
    "more",
    "missing",
    "foreign",
    "print",
    "write",
    "sleep",
    "spawn",
    "endless",
    "tell",
]


class TrickParams(Params):
    trick: Trick = "none"
    add: int = Field(1, ge=0, le=255, description="added to every pixel")


class Tricky(Filter[TrickParams]):
    """Adds a number to every pixel, unless its parameter asks for mischief."""

    name = "tricky"
    info = FilterInfo(block=4)

    def setup(self, context: Context, params: TrickParams) -> None:
        self.resets = 0
        self.tell = context.tell

    def reset(self) -> None:
        self.resets += 1

    def process(self, block: Block, params: TrickParams) -> Block:
        self._misbehave(params.trick)
        frames = block.frames
        if params.trick == "tell":
            self.tell("it goes to rtmp://host/live/k3y-of-the-streamer")
            self.tell("x" * 10_000)
        if params.trick == "shape":
            return block.with_video(frames[..., 0])
        if params.trick == "dtype":
            return block.with_video(frames.astype(np.float32))  # type: ignore[arg-type]
        if params.trick == "count":
            return block.with_video(frames[:-1])
        if params.trick == "more":
            return block.with_video(np.concatenate([frames, frames[:1]]))
        if params.trick == "missing":
            return Block(pts=block.pts)
        if params.trick == "foreign":
            return block.with_video(frames[:1], (9.0,))
        out = frames + np.uint8(params.add)
        out[:, 0, 0, 0] = self.resets
        return block.with_video(out)

    @staticmethod
    def _misbehave(trick: Trick) -> None:
        if trick == "raise":
            raise ValueError("no such luck")
        if trick == "memory":
            raise MemoryError
        if trick == "exit":
            os._exit(7)
        if trick == "hang":
            time.sleep(3600)
        if trick == "sleep":
            time.sleep(0.2)
        if trick == "spawn":
            # It inherits our pipes, and would hold them open after us.
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        if trick == "endless":
            os.write(2, b"x" * 100_000)
        if trick == "print":
            print('{"kind": "done", "id": 1}')  # noqa: T201
        if trick == "write":
            os.write(1, b"\x00not json\n")
            sys.stdout.write("half a line")
            sys.stdout.flush()


class LateParams(Params):
    lag: int = Field(3, ge=0, le=8)


class Late(Filter[LateParams]):
    """Gives each frame as it is, ``lag`` frames late; what is too much when that falls is left out."""

    name = "late"
    info = FilterInfo(block=2)

    def setup(self, context: Context, params: LateParams) -> None:
        self.reset()

    def reset(self) -> None:
        self.owed: list[tuple[float, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]] = []

    def process(self, block: Block, params: LateParams) -> Block:
        self.owed += [(pts, frame.copy()) for pts, frame in zip(block.pts, block.frames, strict=True)]
        due = self.owed[: max(0, len(self.owed) - params.lag)]
        self.owed = self.owed[len(due) :]
        if not due:
            return Block()
        due = due[-len(block.pts) :]
        return block.with_video(np.stack([frame for _, frame in due]), tuple(pts for pts, _ in due))


class Untrained(Filter[Params]):
    name = "untrained"

    def setup(self, context: Context, params: Params) -> None:
        raise RuntimeError("weights are missing")

    def process(self, block: Block, params: Params) -> Block:
        return block


class Unborn(Filter[Params]):
    name = "unborn"

    def setup(self, context: Context, params: Params) -> None:
        print("out of video memory", file=sys.stderr)  # noqa: T201
        os._exit(3)

    def process(self, block: Block, params: Params) -> Block:
        return block


class Sized(Filter[Params]):
    """Writes the size it was given into its first pixels."""

    name = "sized"
    info = FilterInfo(block=1, sizes=((16, 16), (32, 32)))

    def process(self, block: Block, params: Params) -> Block:
        return block.with_video(np.full_like(block.frames, block.frames.shape[2]))


class AnySize(Sized):
    name = "any-size"
    info = FilterInfo(block=1)


class Greedy(Filter[Params]):
    """Writes to what it was given."""

    name = "greedy"

    def process(self, block: Block, params: Params) -> Block:
        block.frames[...] = 0
        return block


class Nameless(Filter[Params]):
    def process(self, block: Block, params: Params) -> Block:
        return block


class Idle(Filter[Params]):
    name = "idle"


NOT_A_FILTER = 5


class Listening(Filter[Params]):
    """Shows how loud it is, in hundredths, and since when, in seconds."""

    name = "listening"
    info = FilterInfo(takes="audio")

    def process(self, block: Block, params: Params) -> Block:
        pictures = np.zeros_like(block.frames)
        if block.audio is not None:
            assert block.audio.dtype == np.float32
            pictures[..., 0] = round(100 * float(block.audio[0].mean()))
            pictures[..., 1] = round(100 * float(block.audio[1].mean()))
            pictures[..., 2] = round(block.audio_pts)
        return block.with_video(pictures)
