"""Platforms by name: where they take streams in, what they take, and how their keys are found without being typed."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from streamfx.core.errors import UsageError
from streamfx.media.base import EncodeSettings, OutputFormat
from streamfx.media.keys import stored_key
from streamfx.media.url import MediaUrl

logger = logging.getLogger(__name__)

CUSTOM = "custom"
"""What stands before any other server's URL: ``custom:rtmp://HOST/APP/KEY``."""

_STREAMS = ("rtmp", "rtmps")
_PRESET = re.compile(r"([A-Za-z][A-Za-z0-9_-]+)(?::(?!//)(.*))?", re.DOTALL)
_SLACK = Fraction(101, 100)


@dataclass(frozen=True, slots=True)
class Cap:
    """Pictures of at most ``lines`` on their shorter side, ``fps`` frames a second: at most ``kbps`` of video."""

    lines: int
    fps: int
    kbps: int


@dataclass(frozen=True, slots=True)
class Platform:
    """What a platform documents, for H.264 and AAC by RTMP.

    ``ingest``: its server and application; ``size``: the longer and the shorter side of the largest picture;
    ``caps``: of which the least that fits a picture holds; ``gop_seconds``: the most between two key frames;
    ``trial``: a query for its key with which nothing goes on air; ``source``: its own page, and when that said so.
    """

    name: str
    ingest: str
    size: tuple[int, int]
    fps: int
    caps: tuple[Cap, ...]
    audio_kbps: int
    gop_seconds: float
    source: str
    trial: str = ""

    def video_kbps(self, size: tuple[int, int], fps: Fraction) -> int:
        """The most video it takes of such pictures."""
        return min(cap.kbps for cap in self.caps if min(size) <= cap.lines and fps <= cap.fps * _SLACK)


PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform(
            "twitch",
            "rtmps://ingest.global-contribute.live-video.net/app",
            size=(1920, 1080),
            fps=60,
            caps=(Cap(1080, 60, 6000),),
            # Creator Camp says 320; "Broadcast Requirements" (2017) says 160, which both allow.
            audio_kbps=160,
            gop_seconds=2,
            source="Twitch: Broadcasting Guidelines; Video Broadcast and Get Ingest Servers (dev.twitch.tv), 2026",
            trial="bandwidthtest=true",
        ),
        Platform(
            "youtube",
            "rtmps://a.rtmps.youtube.com/live2",
            size=(3840, 2160),
            fps=60,
            caps=(
                Cap(1080, 30, 8000),
                Cap(720, 60, 8000),
                Cap(1080, 60, 12_000),
                Cap(1440, 30, 15_000),
                Cap(1440, 60, 24_000),
                Cap(2160, 30, 30_000),
                Cap(2160, 60, 35_000),
            ),
            audio_kbps=128,
            gop_seconds=4,
            source="YouTube Help: Choose live encoder settings, bitrates, and resolutions, 2026",
        ),
        Platform(
            "kick",
            "rtmps://fa723fc1b171.global-contribute.live-video.net/app",
            size=(1920, 1080),
            fps=60,
            # No page of Kick's could be read: as of Twitch, whose network it uses.
            caps=(Cap(1080, 60, 6000),),
            audio_kbps=160,
            gop_seconds=2,
            source="unsure: the address is that of Kick's Creator Dashboard (Stream URL), as others report it in 2026",
        ),
        Platform(
            "facebook",
            "rtmps://live-api-s.facebook.com:443/rtmp",
            size=(1920, 1080),
            fps=60,
            caps=(
                Cap(360, 60, 1000),
                Cap(480, 60, 2000),
                Cap(720, 30, 4000),
                Cap(720, 60, 6000),
                Cap(1080, 30, 6000),
                Cap(1080, 60, 9000),
            ),
            audio_kbps=256,
            gop_seconds=4,
            source="Meta for Developers: Live Video API, Reference, Recommended Settings, 2026",
        ),
    )
}
"""By name. Bitrates of video are the highest a page names for pictures of such a size and rate."""


def output_url(text: str, environment: Mapping[str, str] = os.environ, *, stored: bool = True) -> MediaUrl:
    """Reads an output: a platform (``twitch``, ``twitch:KEY``, ``twitch:@NAME``, ``twitch:rtmps://HOST/APP/KEY``), or
    what ``MediaUrl.parse`` reads, with ``custom:`` before it or without.

    ``stored``: whether keys may be looked up: in the environment, a file or the keyring. Raises ``UsageError``.
    """
    match = _PRESET.fullmatch(text.strip())
    if match is None:
        return MediaUrl.parse(text)
    name, rest = match[1].lower(), match[2] or ""
    if name == CUSTOM and match[2] is not None:
        url = MediaUrl.parse(rest)
        if url.scheme not in _STREAMS:
            raise UsageError("custom: is for another server's URL; write custom:rtmp://HOST/APP/KEY")
        return url
    platform = PLATFORMS.get(name)
    if platform is None:
        _refuse_unknown(name, match[2])
        return MediaUrl.parse(text)
    account = rest[1:] if rest.startswith("@") else ""
    if not rest or account:
        if not stored:
            raise UsageError(f"{name} needs its key here; write {name}:KEY")
        key = _look_up(platform, account, environment)
    else:
        key = rest
    url = MediaUrl.parse(_address(platform, key))
    return replace(url, platform=name, account="" if "/" in account else account)


def fitted(url: MediaUrl, output: OutputFormat) -> OutputFormat:
    """``output`` as the platform of ``url`` takes it; the very same where that is so already, or it is no platform's.

    Bitrates and the time between key frames are lowered, with a line in the log. Raises ``UsageError`` for pictures
    that are too large or too many.
    """
    from streamfx.media.encoder import video_bitrate

    platform = PLATFORMS.get(url.platform)
    if platform is None:
        return output
    _refuse_pictures(platform, output)
    encode = output.encode
    rate = encode.video_bitrate or video_bitrate(output.size, output.fps)
    most = 1000 * platform.video_kbps(output.size, output.fps)
    fits = replace(
        encode,
        video_bitrate=most if rate > most else encode.video_bitrate,
        audio_bitrate=min(encode.audio_bitrate, 1000 * platform.audio_kbps),
        gop_seconds=min(encode.gop_seconds, platform.gop_seconds),
    )
    if fits == encode:
        return output
    logger.warning("%s takes less than was asked for: %s", url, _changes(encode, fits, rate))
    return replace(output, encode=fits)


def trial_address(url: MediaUrl) -> str:
    """The URL to publish to for a trial: with the platform's query for that, if it has one. It holds the key."""
    platform = PLATFORMS.get(url.platform)
    if platform is None or not platform.trial:
        return url.raw
    return f"{url.raw}{'&' if '?' in url.raw else '?'}{platform.trial}"


def _address(platform: Platform, key: str) -> str:
    """Where to push to. ``key``: the key alone, another server of the platform and the key, or a whole URL."""
    if key.partition("://")[0] in _STREAMS:
        return key
    host, cut, rest = key.partition("/")
    if not re.fullmatch(r"[^\s'\"@]+", key) or (cut and ("." not in host or not rest)):
        raise UsageError(
            f"the stream key of {platform.name} cannot be one: it is empty or has a space, a quote or a slash in it; "
            "copy it anew from the platform's page"
        )
    if not cut:
        return f"{platform.ingest}/{key}"
    scheme, _, ingest = platform.ingest.partition("://")
    app = "" if "/" in rest else f"/{ingest.partition('/')[2]}"
    return f"{scheme}://{host}{app}/{rest}"


def _look_up(platform: Platform, account: str, environment: Mapping[str, str]) -> str:
    """The key of an account ("": the only one): from the file it names, the environment, or the keyring."""
    if "/" in account:
        try:
            return Path(account).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UsageError(f"the key file {account} cannot be read; check its name and its permissions") from error
    name = account or platform.name
    variable = f"{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}_KEY"
    key = environment.get(variable, "").strip() or stored_key(name)
    if not key:
        raise UsageError(
            f"no stream key is known for {name}; store it with: streamfx keys set {name}, or export {variable}=..."
        )
    return key


def _refuse_unknown(name: str, rest: str | None) -> None:
    """A key must not end up in a sentence about a file name, so a platform that looks mistyped is told here."""
    near = difflib.get_close_matches(name, [*PLATFORMS, CUSTOM], 1, cutoff=0.7)
    if near:
        raise UsageError(f"{name!r} is no platform that is known; did you mean {near[0]!r}?")
    if rest and not Path(rest).suffix and "/" not in rest:
        raise UsageError(f"{name!r} is no platform that is known; there are: {', '.join([*PLATFORMS, CUSTOM])}")


def _refuse_pictures(platform: Platform, output: OutputFormat) -> None:
    (width, height), (longer, shorter) = output.size, platform.size
    if max(width, height) > longer or min(width, height) > shorter:
        wanted = f"{longer}x{shorter}" if width >= height else f"{shorter}x{longer}"
        raise UsageError(
            f"{platform.name} takes no pictures larger than {longer}x{shorter}, and these are {width}x{height}; "
            f"give --size {wanted}, or `size: {wanted}` in the file"
        )
    if output.fps > platform.fps * _SLACK:
        raise UsageError(
            f"{platform.name} takes no more than {platform.fps} frames a second, and these are {float(output.fps):g}; "
            f"give --fps {platform.fps}, or `fps: {platform.fps}` in the file"
        )


def _changes(asked: EncodeSettings, fits: EncodeSettings, rate: int) -> str:
    changes = []
    if fits.video_bitrate != asked.video_bitrate:
        changes.append(f"video {fits.video_bitrate // 1000} instead of {rate // 1000} kbit/s")
    if fits.audio_bitrate != asked.audio_bitrate:
        changes.append(f"sound {fits.audio_bitrate // 1000} instead of {asked.audio_bitrate // 1000} kbit/s")
    if fits.gop_seconds != asked.gop_seconds:
        changes.append(f"a key frame every {fits.gop_seconds:g} instead of {asked.gop_seconds:g} s")
    return ", ".join(changes)
