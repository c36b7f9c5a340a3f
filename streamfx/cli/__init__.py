"""The command line: ``streamfx run``, ``streamfx filters``, ``streamfx doctor``."""

from streamfx.cli.app import main

__all__ = ["main"]
