"""A filter that takes its time, for the overload benchmark."""

from __future__ import annotations

import time

from pydantic import Field

from streamfx.filters import Block, Filter, FilterInfo, Params


class SlowParams(Params):
    """How slow."""

    ms: float = Field(100, ge=0, le=60_000, description="what a frame takes, in milliseconds")


class Slow(Filter[SlowParams]):
    """Gives frames back unchanged, late."""

    name = "slow"
    info = FilterInfo(summary="takes its time", min_scale=1.0)

    def process(self, block: Block, params: SlowParams) -> Block:
        time.sleep(params.ms / 1e3)
        return block
