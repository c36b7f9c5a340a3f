"""The filter API: what a plugin implements, how it is found, and the process it runs in."""

from streamfx.filters.base import Block, Context, Filter, FilterInfo, Params, at_setup

__all__ = ["Block", "Context", "Filter", "FilterInfo", "Params", "at_setup"]
