"""``camera://`` and ``microphone://``: what is plugged into this machine, by FFmpeg's devices."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from streamfx.core.errors import SourceError, StreamFXError, UsageError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Samples, VideoFrame
from streamfx.media import devices
from streamfx.media.base import MediaInfo, Source, SourceRequest
from streamfx.media.capture import Inbox, Recorder, Taken, Target, find_alsa
from streamfx.media.convert import AudioConverter, VideoConverter
from streamfx.media.devices import DEFAULT, Device, Kind, find_again, find_camera, find_microphone, input_format
from streamfx.media.threaded import Outlet, threaded_source
from streamfx.media.url import MediaUrl, parse_size
from streamfx.media.v4l2 import Mode

_USUAL_SIZE = (1280, 720)
_ENOUGH = 0.9
"""Share of the wanted frame rate that is as good as all of it."""
_COMPRESSED = ("mjpeg", "h264", "hevc")
_LEAST_SOUND = 0.01
"""Seconds of sound that are sent on together: sound cards give a thousand pieces a second."""
_LOOK = 0.1
_STOP_TIMEOUT = 0.8


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asks of a camera; None or empty: its own. ``format``: a name of FFmpeg's."""

    size: tuple[int, int] | None = None
    fps: float | None = None
    format: str = ""


def open_camera(url: MediaUrl, request: SourceRequest) -> AbstractAsyncContextManager[Source]:
    """A camera: ``camera://0`` by its number, ``camera:///dev/video2`` by its path, or ``?name=NAME``. Options:
    ``size=1280x720``, ``fps=30``, ``format=mjpeg``; ``mic=default`` or ``mic=NAME`` adds a microphone's sound.

    Raises ``UsageError``; entering raises ``UsageError`` for one that is not there, ``SourceError`` for one that cannot
    be opened.
    """
    url.allow(("name", "size", "fps", "format", "mic"))
    wanted = Wanted(
        parse_size(url.options["size"]) if "size" in url.options else None,
        url.number("fps", 30, 1, 240) if "fps" in url.options else None,
        url.options.get("format", ""),
    )
    return _opened(str(url), request, lambda: find_camera(url), wanted, url.options.get("mic"))


def open_microphone(url: MediaUrl, request: SourceRequest) -> AbstractAsyncContextManager[Source]:
    """A microphone, for a filter that is driven by sound: ``microphone://default`` or ``?name=NAME``. Raises as
    ``open_camera``."""
    url.allow(("name",))
    if url.host not in ("", DEFAULT) or url.path.strip("/"):
        raise UsageError(
            f"{url}: write microphone://default, or microphone://?name=NAME; `streamfx devices` lists them"
        )
    if not request.sound_will_do:
        raise UsageError(
            f"{url} has no picture; choose a filter that is driven by sound, as --filter avatar, or a camera with "
            "its sound, as 'camera://0?mic=default'"
        )
    return _opened(str(url), request, None, Wanted(), url.options.get("name", DEFAULT))


@contextlib.asynccontextmanager
async def _opened(
    name: str, request: SourceRequest, camera: Callable[[], Device] | None, wanted: Wanted, mic: str | None
) -> AsyncIterator[Source]:
    loop = asyncio.get_running_loop()

    def tell(text: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it who wanted to know
            loop.call_soon_threadsafe(request.on_state, text)

    def produce(outlet: Outlet) -> None:
        finders = []
        if camera is not None:
            finders.append(_Finder(camera(), devices.cameras, wanted))
        if mic is not None:
            find_alsa()
            finders.append(_Finder(find_microphone(mic, name), devices.microphones, wanted))
        inbox = Inbox()
        recorders = [
            Recorder(finder.find, finder.explain, inbox, request.clock, tell, outlet.counters) for finder in finders
        ]
        try:
            for recorder in recorders:
                recorder.start()
            _Pump(request, outlet, inbox, recorders[0], camera is not None, mic is not None).run()
        finally:
            deadline = time.monotonic() + _STOP_TIMEOUT
            for recorder in recorders:
                recorder.stop(max(0.0, deadline - time.monotonic()))

    async with threaded_source(produce, name) as source:
        yield source


class _Finder:
    """Where one device is, each time that it is to be opened, and what to say when it does not open."""

    def __init__(self, device: Device, listing: Callable[[], list[Device]], wanted: Wanted) -> None:
        self._device = device
        self._listing = listing
        self._wanted = wanted
        self._looked = False

    def find(self) -> Target:
        # What has no name but its place is where it was; the others may be plugged in elsewhere.
        if self._looked and self._device.name != self._device.place:
            self._device = find_again(self._device, self._listing())
        self._looked = True
        return target_of(self._device, self._wanted)

    def explain(self, target: Target, error: Exception) -> StreamFXError:
        """The sentence for a device that could not be opened."""
        number = getattr(error, "errno", None)
        reason = getattr(error, "strerror", None) or str(error)
        if self._device.fault or number in (errno.EACCES, errno.EPERM):
            return SourceError(
                f"{target.label} {self._device.fault or 'may not be opened; allow this program to use it'}"
            )
        others = [str(one) for one in self._listing() if one.place != self._device.place]
        instead = f", or use another: {', '.join(others)}" if others else ""
        if number == errno.EBUSY:
            return SourceError(f"{target.label} is in use by another program; close that one{instead}")
        return SourceError(
            f"{target.label} cannot be opened ({reason.lower()}); close what uses it, plug it in again{instead}"
        )


def target_of(device: Device, wanted: Wanted) -> Target:
    """What FFmpeg is to open, and how, on this system."""
    kind: Kind = "microphone" if device.kind == "microphone" else "camera"
    format, label = input_format(kind), f"{kind} {device}"
    if kind == "microphone":
        place = {"avfoundation": f":{device.place}", "dshow": f"audio={device.place}"}.get(format, device.place)
        return Target(label, format, place, {"audio_buffer_size": "20"} if format == "dshow" else {})
    place = {"dshow": f"video={device.place}", "avfoundation": f"{device.place}:none"}.get(format, device.place)
    options = _options(format, choose(device.modes, wanted))
    return Target(label, format, place, options)


def choose(modes: tuple[Mode, ...], wanted: Wanted) -> Wanted:
    """What to ask a camera for: of what it gives, the size that is wanted (else 1280×720, or the largest below), at the
    rate that is wanted (else 30), uncompressed where that is fast enough. Without a list of modes: what is wanted."""
    fitting = [mode for mode in modes if wanted.format in ("", mode.format)]
    size = wanted.size
    if size is None:
        small = [mode.size for mode in fitting if all(a <= b for a, b in zip(mode.size, _USUAL_SIZE, strict=True))]
        size = max(small, key=lambda one: one[0] * one[1], default=None)
    fitting = [mode for mode in fitting if mode.size == size]
    if not fitting:
        return wanted
    fps = wanted.fps or 30.0
    enough = _ENOUGH * min(fps, max(max(mode.rates, default=fps) for mode in fitting))
    fast = [mode for mode in fitting if max(mode.rates, default=fps) >= enough]
    best = min(fast, key=lambda mode: _COMPRESSED.index(mode.format) + 1 if mode.format in _COMPRESSED else 0)
    rate = min(best.rates, key=lambda rate: abs(rate - fps), default=fps)
    return Wanted(size, rate, best.format)


def _options(format: str, wanted: Wanted) -> dict[str, str]:
    options = {}
    if wanted.size is not None:
        options["video_size"] = f"{wanted.size[0]}x{wanted.size[1]}"
    # Without one macOS is asked for 29.97, which its cameras do not have.
    fps = wanted.fps or (30.0 if format == "avfoundation" else None)
    if fps is not None:
        options["framerate"] = f"{fps:g}"
    if wanted.format:
        options["input_format" if format == "v4l2" else "pixel_format"] = wanted.format
    if format == "dshow":
        options["rtbufsize"] = str(128 << 20)
    return options


class _Pump:
    """Brings what the recorders take to the session, converted, in the source's thread."""

    def __init__(
        self, request: SourceRequest, outlet: Outlet, inbox: Inbox, first: Recorder, pictures: bool, sound: bool
    ) -> None:
        self._outlet = outlet
        self._inbox = inbox
        self._first = first
        self._pictures = pictures
        self._sound = sound
        self._video = VideoConverter(request.size)
        self._audio = AudioConverter()
        self._runs: list[Samples] = []
        self._runs_from = 0.0
        self._sequence = 0
        self._announced = False

    def run(self) -> None:
        """Until the session has had enough, or a device could not be opened at the start."""
        while True:
            self._outlet.wait(0)
            taken = self._inbox.take(_LOOK)
            if taken is None:
                continue
            if isinstance(taken[0], av.VideoFrame):
                self._send_picture(taken[0], taken)
            elif not self._pictures or self._announced:
                self._send_sound(taken[0], taken)

    def _send_picture(self, frame: av.VideoFrame, taken: Taken) -> None:
        pixels = self._video.convert(frame)
        picture = VideoFrame(pixels, taken[1], taken[2], self._sequence)
        if not self._announced:
            rate = Fraction(self._first.rate or 30).limit_denominator(1001)
            self._announce(MediaInfo(picture.size, min(max(rate, Fraction(1)), Fraction(240)), self._sound, live=True))
            return  # it has waited for whoever reads
        self._sequence += 1
        self._outlet.send(picture)

    def _send_sound(self, frame: av.AudioFrame, taken: Taken) -> None:
        if not self._announced:
            self._announce(MediaInfo.of_sound(live=True))
            return
        if not self._runs:
            self._runs_from = taken[1]
        self._runs += self._audio.convert(frame)
        if sum(run.shape[1] for run in self._runs) >= _LEAST_SOUND * AUDIO_RATE:
            self._outlet.send(AudioFrame(np.concatenate(self._runs, axis=1), self._runs_from, taken[2]))
            self._runs = []

    def _announce(self, info: MediaInfo) -> None:
        self._outlet.announce(info)
        self._announced = True
        self._inbox.forget_sound()
