"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import av

import streamfx


def describe() -> str:
    """One line for the head of a table."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
    return (
        f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, av {av.__version__} "
        f"(libavcodec {libavcodec}), streamfx {streamfx.__version__}"
    )
