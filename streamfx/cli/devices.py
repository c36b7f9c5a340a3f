"""``streamfx devices``: cameras, microphones and virtual cameras, each with the URL to use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamfx.core.errors import StreamFXError
from streamfx.media.devices import Device, cameras, microphones, virtual_cameras
from streamfx.media.v4l2 import Mode
from streamfx.media.virtualcam import how_to_make_one, missing_library

_MOST_MODES = 6


def show_devices() -> None:
    """A table of each kind, or a sentence where there is none."""
    console = Console()
    for title, use, listing, nothing in (
        ("Cameras", "input", cameras, "none found; plug one in"),
        ("Microphones", "input, alone or as 'camera://0?mic=NAME'", microphones, "none found; plug one in"),
        ("Virtual cameras", "output", virtual_cameras, f"none found; {how_to_make_one()}"),
    ):
        console.print(f"[bold]{title}[/bold] ({use})")
        _show(console, listing, nothing)
        console.print()
    lacking = missing_library()
    if lacking:
        console.print(f"Sending to a virtual camera needs a library: {escape(lacking)}", soft_wrap=True)
    console.print(
        "An address with a ? in it is written in quotes: streamfx run 'camera://0?size=1280x720' virtualcam://",
        soft_wrap=True,
    )


def _show(console: Console, listing: Callable[[], list[Device]], nothing: str) -> None:
    try:
        found = listing()
    except StreamFXError as error:
        found, nothing = [], str(error)
    if not found:
        console.print(f"  {escape(nothing)}", soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 1), show_header=False)
    table.add_column(no_wrap=True)
    for device in found:
        table.add_row(
            escape(device.url), escape(device.name), escape(device.fault or "; ".join(mode_lines(device.modes)))
        )
    console.print(table)


def mode_lines(modes: tuple[Mode, ...]) -> Iterator[str]:
    """Sizes from the largest on, each with its fastest rate and the formats that have it."""
    by_size: dict[tuple[int, int], dict[str, float]] = {}
    for mode in modes:
        by_size.setdefault(mode.size, {})[mode.format] = max(mode.rates, default=0)
    largest = sorted(by_size, key=lambda size: size[0] * size[1], reverse=True)
    for size in largest[:_MOST_MODES]:
        formats = ", ".join(
            f"{name} {rate:g}/s" if rate else name
            for name, rate in sorted(by_size[size].items(), key=lambda it: -it[1])
        )
        yield f"{size[0]}x{size[1]} {formats}"
    if len(largest) > _MOST_MODES:
        yield f"and {len(largest) - _MOST_MODES} smaller"
