"""``srt://`` in and out: MPEG-TS over SRT, calling a peer or listening for one (``?mode=listener``)."""

from __future__ import annotations

import contextlib
import math
import socket
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from streamfx.core.errors import UsageError
from streamfx.media.base import OutputFormat, Shared, Source, SourceRequest
from streamfx.media.hwaccel import hwaccel_option
from streamfx.media.live_input import LiveInput, live_source
from streamfx.media.target import Target, Transport
from streamfx.media.url import MediaUrl

_CONNECTION = ("mode", "passphrase", "latency", "streamid")


def open_srt(url: MediaUrl, request: SourceRequest) -> AbstractAsyncContextManager[Source]:
    """An SRT source. Options: those of ``srt_address``; ``grace=SECONDS`` ends the stream when nothing has come for so
    long (listening: never; calling: 60); ``hwaccel=DEVICE`` decodes there.

    Raises ``UsageError``; entering raises ``SourceError``.
    """
    url.allow((*_CONNECTION, "grace", "hwaccel"))
    listens = listens_for_callers(url)
    grace = url.number("grace", 0 if listens else 60, 0, 1e7)
    hwaccel = hwaccel_option(url)
    place, options = srt_address(url)
    if listens:
        check_port(url)
    what = LiveInput(str(url), place, "mpegts", grace, options, url.secrets, listens)
    return live_source(what, request, hwaccel)


def srt_output(url: MediaUrl, output: OutputFormat, encoders: Shared) -> Target:
    """A live connection to whoever is called or calls; tried again for ever. Options: those of ``srt_address``.
    ``encoders``: as ``push_output`` takes them. Raises ``UsageError``."""
    check_output(url)
    place, options = srt_address(url)
    transport = Transport("mpegts", options, place)
    if listens_for_callers(url):
        transport = replace(transport, connect_timeout=math.inf, longest_wait=1.0)
    return Target(url, output, encoders, transport)


def check_output(url: MediaUrl) -> None:
    """Raises ``UsageError`` unless it can be an output."""
    url.allow(_CONNECTION)
    srt_address(url)
    if listens_for_callers(url):
        check_port(url)


def listens_for_callers(url: MediaUrl) -> bool:
    """Whether it waits to be called. Raises ``UsageError`` for a mode there is not."""
    mode = url.options.get("mode", "caller")
    if mode not in ("caller", "listener"):
        raise UsageError(f"{url}: option mode is {mode!r}; write mode=caller or mode=listener")
    return mode == "listener"


def srt_address(url: MediaUrl) -> tuple[str, dict[str, str]]:
    """The URL as FFmpeg takes it, and FFmpeg's options for it, which hold the secrets. Options of ours: ``mode=caller``
    (or ``listener``; without a host: on loopback), ``passphrase=``, ``latency=MILLISECONDS``, ``streamid=``. Raises
    ``UsageError``."""
    listens = listens_for_callers(url)
    if not url.port:
        raise UsageError(f"{url} has no port; write srt://HOST:PORT, or srt://:PORT?mode=listener to be called")
    if not url.host and not listens:
        raise UsageError("srt:// names no host to call; write srt://HOST:PORT, or add ?mode=listener to be called")
    if url.path.strip("/"):
        raise UsageError(f"{url}: SRT has no paths; name the stream as ?streamid=NAME")
    options = {"mode": "listener" if listens else "caller"}
    for name, least, most in (("passphrase", 10, 79), ("streamid", 1, 512)):
        if name in url.options:
            value = url.options[name]
            if not least <= len(value.encode()) <= most or not value.isprintable():
                raise UsageError(f"{url}: a {name} has from {least} to {most} characters; choose another")
            options[name] = value
    if "latency" in url.options:
        options["latency"] = str(round(1000 * url.number("latency", 120, 0, 60_000)))
    host = url.host or "127.0.0.1"
    return f"srt://{f'[{host}]' if ':' in host else host}:{url.port}", options


def check_port(url: MediaUrl) -> None:
    """Raises ``UsageError`` if callers cannot be listened for at this address. A name is not looked up, which may take
    long: whoever listens says what is wrong with it."""
    host = url.host or "127.0.0.1"
    lookup = 0 if host == "localhost" else socket.AI_NUMERICHOST
    try:
        found = socket.getaddrinfo(host, url.port, type=socket.SOCK_DGRAM, flags=lookup)
    except socket.gaierror:
        return
    family, kind, protocol, _, address = found[0]
    try:
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.bind(address)
    except OSError:
        raise UsageError(
            f"cannot listen on {host} port {url.port}; another program uses it, or it is no address of this machine: "
            "choose another"
        ) from None
