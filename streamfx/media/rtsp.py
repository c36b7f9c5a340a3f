"""``rtsp://`` and ``rtsps://`` in: cameras and media servers, pulled by FFmpeg."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from streamfx.core.errors import UsageError
from streamfx.media.base import Source, SourceRequest
from streamfx.media.hwaccel import hwaccel_option
from streamfx.media.live_input import LiveInput, live_source
from streamfx.media.url import MediaUrl

OURS = ("transport", "grace", "hwaccel")
"""Options that are for us; every other one is the camera's own."""


def open_rtsp(url: MediaUrl, request: SourceRequest) -> AbstractAsyncContextManager[Source]:
    """An RTSP source. Options: ``transport=tcp`` (or ``udp``), ``grace=SECONDS`` without anything after which a lost
    stream is given up (60), ``hwaccel=DEVICE``. What else is in the query goes to the camera as it stands.

    Raises ``UsageError``; entering raises ``SourceError``.
    """
    transport = url.options.get("transport", "tcp")
    if transport not in ("tcp", "udp"):
        raise UsageError(f"{url}: option transport is {transport!r}; write transport=tcp or transport=udp")
    if not url.host:
        raise UsageError(f"{url.scheme}:// names no camera; write {url.scheme}://USER:PASSWORD@HOST/PATH")
    grace = url.number("grace", 60, 1, 1e7)
    hwaccel = hwaccel_option(url)
    options = {"rtsp_transport": transport, "allowed_media_types": "video+audio"}
    what = LiveInput(str(url), camera_url(url), "rtsp", grace, options, url.secrets)
    return live_source(what, request, hwaccel)


def camera_url(url: MediaUrl) -> str:
    """The URL as the camera is to see it: with its own options, in their order, and without ours."""
    address, _, query = url.raw.partition("?")
    theirs = [part for part in query.split("&") if part and part.partition("=")[0] not in OURS]
    return address + (f"?{'&'.join(theirs)}" if theirs else "")
