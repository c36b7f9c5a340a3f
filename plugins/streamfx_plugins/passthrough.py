"""Gives every frame back as it came: for measuring what the pipeline itself costs."""

from __future__ import annotations

from streamfx.filters import Block, Filter, FilterInfo, Params


class PassthroughParams(Params):
    """None."""


class Passthrough(Filter[PassthroughParams]):
    """The filter that changes nothing."""

    name = "passthrough"
    info = FilterInfo(summary="Gives the frames back unchanged; shows what the pipeline itself costs.", min_scale=1.0)

    def process(self, block: Block, params: PassthroughParams) -> Block:
        return block
