"""``streamfx doctor``: what this machine can do, and how to get what is missing."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streamfx import __version__
from streamfx.cli.filters import on_one_line
from streamfx.core.errors import StreamFXError
from streamfx.filters.registry import listing
from streamfx.media.devices import DEFAULT, cameras, microphones, virtual_cameras
from streamfx.media.hardware import ENCODERS, ask
from streamfx.media.hwaccel import DEVICES
from streamfx.media.virtualcam import how_to_make_one, missing_library

OK, MISSING, BAD = "[green]ok[/green]", "[yellow]–[/yellow]", "[red]missing[/red]"

_OPTIONAL = {
    "torch": (
        "diffusion models",
        "pip install -c constraints-cpu.txt torch   (with an NVIDIA GPU: pip install 'streamfx[gpu]')",
    ),
    "triton": ("GPU kernels", "pip install 'streamfx[gpu]'"),
    "tensorrt_rtx": ("TensorRT engines", "pip install 'streamfx[tensorrt]'"),
    "onnx": ("model export", "pip install 'streamfx[engines]'"),
    "onnxruntime": ("engines on a CPU", "pip install 'streamfx[engines]'"),
    "openvino": ("engines on a CPU", "pip install 'streamfx[engines]'"),
    "simpleobsws": ("streamfx obs", "pip install 'streamfx[obs]'"),
}

Row = tuple[str, str, str]


def show_doctor() -> int:
    """Prints the report. Returns 0, or 1 if something is missing without which nothing works."""
    faults = asyncio.run(ask())
    console = Console()
    console.print(f"[bold]streamfx {__version__}[/bold] on Python {platform.python_version()}, {platform.platform()}")
    sections = {
        "machine": machine_rows(),
        "encoders": fault_rows(ENCODERS, faults.encoders),
        "decoding in hardware": fault_rows(DEVICES, faults.decoders),
        "devices": device_rows(),
        "filters": filter_rows(),
        "optional packages": package_rows(),
    }
    for title, rows in sections.items():
        table = Table(
            title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 1)
        )
        for row in rows:
            table.add_row(*row)
        console.print()
        console.print(table)
    essential = not any(faults.encoders[name] for name in ("libx264", "aac"))
    if not essential:
        console.print(
            "\n[red]H.264 or AAC encoding does not work; reinstall FFmpeg's binding: "
            "pip install --force-reinstall av[/red]"
        )
    return 0 if essential else 1


def machine_rows() -> Iterator[Row]:
    threads = os.cpu_count() or 1
    yield OK, "CPU", f"{threads} threads; {', '.join(_cpu_features()) or 'no vector extensions found'}"
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free / 2**20
        hint = "" if free > 128 else "; little: in a container, start it with --shm-size=512m"
        yield (OK if free > 128 else MISSING), "shared memory", f"{free:.0f} MB free{hint}"
    gpu = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    yield (OK if gpu else MISSING), "NVIDIA GPU", "driver found" if gpu else "none found; the CPU is used"


def fault_rows(labels: dict[str, str], faults: dict[str, str]) -> Iterator[Row]:
    """What works, and why the rest does not."""
    for name, label in labels.items():
        fault = faults[name]
        yield (MISSING if fault else OK), name, on_one_line(f"{label}: not here ({fault})" if fault else label)


def device_rows() -> Iterator[Row]:
    """Cameras, microphones, and what a virtual camera lacks."""
    for kind, find in (("cameras", cameras), ("microphones", microphones)):
        try:
            found = [device for device in find() if device.url != f"microphone://{DEFAULT}"]
            text = f"{len(found)}: {', '.join(map(str, found))}" if found else "none found"
        except StreamFXError as error:
            found, text = [], str(error)
        yield (OK if found else MISSING), kind, text
    lacking = missing_library()
    if lacking:
        yield MISSING, "virtual camera", f"its library: {lacking}"
        return
    virtual = virtual_cameras()
    yield (OK if virtual else MISSING), "virtual camera", ", ".join(map(str, virtual)) or f"none; {how_to_make_one()}"


def filter_rows() -> Iterator[Row]:
    for row in listing():
        text = row.error or (row.filter.info.summary if row.filter else "")
        yield (OK if row.filter else BAD), row.name, on_one_line(text)


def package_rows() -> Iterator[Row]:
    for package in ("av", "numpy", "opencv-python-headless"):
        yield OK, package, version(package)
    for module, (purpose, command) in _OPTIONAL.items():
        if find_spec(module) is None:
            yield MISSING, module, f"{purpose}: {command}"
        else:
            yield OK, module, f"{_version_of(module)}; {purpose}"


def _version_of(module: str) -> str:
    try:
        return version(module.replace("_", "-"))
    except PackageNotFoundError:
        return "installed"


def _cpu_features() -> list[str]:
    try:
        flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    except OSError:
        return []
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "amx_bf16": "AMX bf16"}
    return [label for flag, label in known.items() if flag in flags]
