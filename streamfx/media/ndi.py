"""``ndi://NAME``: the picture for other programs in the local network by NDI, with the library cyndilib.

It is sent by a process of its own, as every output is: the library must not take the stream with it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote

from streamfx.core.errors import UsageError
from streamfx.media.base import OutputFormat
from streamfx.media.output_process import format_to_json
from streamfx.media.slots import Slots
from streamfx.media.url import MediaUrl
from streamfx.media.virtualcam import VirtualCamera

MISSING = "NDI needs the library cyndilib: pip install 'streamfx[ndi]'"


def missing_library() -> bool:
    return find_spec("cyndilib") is None


def name_of(url: MediaUrl) -> str:
    """The name of the NDI source that the URL means. Raises ``UsageError``."""
    name = unquote(url.raw.partition("://")[2].partition("?")[0]).strip("/ ")
    if not name:
        raise UsageError(f"{url}: write ndi://NAME, with %20 in place of each space of the name")
    return name


def check_output(url: MediaUrl) -> None:
    """Raises ``UsageError`` unless an NDI source can be offered under this name."""
    url.allow(())
    name_of(url)
    if missing_library():
        raise UsageError(MISSING)


def ndi_output(url: MediaUrl, output: OutputFormat) -> NdiOutput:
    """Offers the picture as an NDI source. Raises ``UsageError``."""
    check_output(url)
    return NdiOutput(url, output)


class NdiOutput(VirtualCamera):
    """An NDI source without sound, whose process is started again when the library takes it down."""

    _program = "streamfx.media.ndi_process"

    def _hello(self, slots: Slots) -> dict[str, Any]:
        return {"device": name_of(self._url), "arena": str(slots.arena.path), "output": format_to_json(self._format)}
