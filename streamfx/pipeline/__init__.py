"""Source → filter → sinks, by the deadline."""

from streamfx.pipeline.session import Session
from streamfx.pipeline.settings import FilterChoice, SessionSettings

__all__ = ["FilterChoice", "Session", "SessionSettings"]
