"""``file://`` and plain paths: any container FFmpeg reads, as fast as possible or paced by its timestamps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from streamfx.core.clock import Clock
from streamfx.core.errors import SourceError, UsageError
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Frame, VideoFrame
from streamfx.media.base import MediaInfo, Source, SourceRequest
from streamfx.media.convert import AudioConverter, VideoConverter
from streamfx.media.hwaccel import NONE, find_device, hwaccel_option
from streamfx.media.threaded import Outlet, threaded_source
from streamfx.media.url import MediaUrl


def open_file(url: MediaUrl, request: SourceRequest) -> AbstractAsyncContextManager[Source]:
    """A file. Options: ``realtime=1`` paces it by its timestamps, ``loop=1`` starts over at the end, for ever,
    ``hwaccel=DEVICE`` decodes it there.

    Raises ``UsageError`` if there is no such file or (entering) no such device; entering raises ``SourceError`` if it
    has no picture (or no sound either, where that will do).
    """
    url.allow(("realtime", "loop", "hwaccel"))
    realtime, loop = url.flag("realtime", request.realtime), url.flag("loop", False)
    hwaccel = hwaccel_option(url)
    path = Path(url.path)
    if not path.exists():
        raise UsageError(f"{path} does not exist; check the file name")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a video file in it")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes); it was probably never finished")

    def produce(outlet: Outlet) -> None:
        _FileReader(path, request, realtime, hwaccel, outlet).run(loop)

    return threaded_source(produce, str(path))


class _Pacer:
    """Holds frames back until the wall clock has come to their timestamps."""

    def __init__(self, clock: Clock, outlet: Outlet) -> None:
        self._clock = clock
        self._outlet = outlet
        self._zero: float | None = None

    def wait(self, pts: float) -> None:
        if self._zero is None:
            self._zero = self._clock.now() - pts
        self._outlet.wait(self._zero + pts - self._clock.now())


class _FileReader:
    """Reads one file, in the source's thread."""

    def __init__(self, path: Path, request: SourceRequest, realtime: bool, hwaccel: str, outlet: Outlet) -> None:
        self._path = path
        self._clock = request.clock
        self._realtime = realtime
        self._hwaccel = hwaccel
        self._sound_will_do = request.sound_will_do
        self._video = VideoConverter(request.size)
        self._audio = AudioConverter()
        self._sequence = 0
        self._outlet = outlet

    def run(self, loop: bool) -> None:
        outlet = self._outlet
        pacer = _Pacer(self._clock, outlet)
        shift = 0.0
        waiting: list[Frame] = []
        announced = False
        while True:
            end = shift
            with self._open() as container:
                for frame, duration in self._decode(container, shift):
                    end = max(end, frame.pts + duration)
                    waiting.append(frame)
                    if not announced and (isinstance(frame, VideoFrame) or not _picture_of(container)):
                        outlet.announce(self._info(container, frame))
                        announced = True
                    # The first sound comes before the first picture, which is longer in the decoder.
                    while announced and waiting:
                        if self._realtime:
                            pacer.wait(waiting[0].pts)
                        outlet.send(self._stamped(waiting.pop(0)))
                stated = _stated_duration(container)
            if not loop or end <= shift:
                self._check_complete(end - shift, stated)
                return
            shift = end

    def _stamped(self, frame: Frame) -> Frame:
        now = self._clock.now()
        if isinstance(frame, AudioFrame):
            return AudioFrame(frame.samples, frame.pts, now)
        self._sequence += 1
        return VideoFrame(frame.pixels, frame.pts, now, self._sequence - 1)

    def _check_complete(self, reached: float, stated: float | None) -> None:
        """Raises ``SourceError`` if much is missing at the end, which FFmpeg takes for an ordinary end."""
        if stated is not None and reached < 0.98 * stated - 1.0:
            raise SourceError(
                f"{self._path} is damaged: it ends after {reached:.1f} s of {stated:.1f} s; what there is was used"
            )

    def _open(self) -> InputContainer:
        container = self._opened(None)
        try:
            video = self._hwaccel != NONE and _picture_of(container)
            device = find_device(self._hwaccel, video.codec_context.name) if video else None
        except UsageError:
            container.close()
            raise
        if device is None:
            return container
        container.close()
        return self._opened(device)

    def _opened(self, device: HWAccel | None) -> InputContainer:
        try:
            container = av.open(str(self._path), hwaccel=device)
        except PermissionError as error:
            raise UsageError(f"{self._path} may not be read; check its permissions") from error
        except (av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(
                f"{self._path} is not a video that FFmpeg can read, or it is damaged ({reason.lower()}); "
                "check that it plays, or write it anew"
            ) from error
        lacking = ""
        if not _picture_of(container) and not self._sound_will_do:
            lacking = "no video stream; give a file with a picture"
        elif not _picture_of(container) and not container.streams.audio:
            lacking = "neither a picture nor sound; give a file that plays"
        if lacking:
            container.close()
            raise SourceError(f"{self._path} has {lacking}")
        return container

    def _info(self, container: InputContainer, first: Frame) -> MediaInfo:
        duration = container.duration / av.time_base if container.duration else None
        stream = _picture_of(container)
        if stream is None or isinstance(first, AudioFrame):
            return MediaInfo.of_sound(self._realtime, duration)
        rate = stream.average_rate or stream.guessed_rate or Fraction(30)
        return MediaInfo(
            size=first.size,
            fps=min(max(Fraction(rate), Fraction(1)), Fraction(240)),
            audio=bool(container.streams.audio),
            live=self._realtime,
            duration=duration,
        )

    def _decode(self, container: InputContainer, shift: float) -> Iterator[tuple[Frame, float]]:
        """Frames with pts in seconds from ``shift`` on, each with its duration."""
        video = _picture_of(container)
        audio = container.streams.audio[0] if container.streams.audio else None
        period, aspect = 0.0, 1.0
        if video is not None:
            if not video.codec_context.is_hwaccel:
                video.thread_type = "AUTO"
            period = float(1 / (video.average_rate or video.guessed_rate or 30))
            aspect = float(video.sample_aspect_ratio or 1)
        chosen: list[Stream] = [stream for stream in (video, audio) if stream is not None]
        starts = [s.start_time * s.time_base for s in chosen if s.start_time is not None and s.time_base is not None]
        origin = float(min(starts, default=0)) - shift
        for packet in self._packets(container, chosen):
            for decoded in self._pictures_or_sound(packet):
                if decoded.pts is None or decoded.time_base is None:
                    continue
                pts = float(decoded.pts * decoded.time_base) - origin
                if isinstance(decoded, av.VideoFrame):
                    yield VideoFrame(self._video.convert(decoded, aspect), pts, 0.0), period
                elif isinstance(decoded, av.AudioFrame):
                    for samples in self._audio.convert(decoded):
                        yield AudioFrame(samples, pts, 0.0), samples.shape[1] / AUDIO_RATE
                        pts += samples.shape[1] / AUDIO_RATE

    def _packets(self, container: InputContainer, streams: list[Stream]) -> Iterator[Packet[Stream]]:
        try:
            yield from container.demux(streams)
        except av.FFmpegError as error:
            raise SourceError(
                f"{self._path} is damaged and cannot be read to its end "
                f"({(error.strerror or 'unknown reason').lower()}); what came before was used"
            ) from error

    def _pictures_or_sound(self, packet: Packet[Stream]) -> list[av.VideoFrame | av.AudioFrame]:
        try:
            return [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame | av.AudioFrame)]
        except av.FFmpegError:
            self._outlet.count("packets_damaged")
            return []


def _stated_duration(container: InputContainer) -> float | None:
    """Seconds of picture an MP4's or MOV's index promises; None for formats that only guess it."""
    video = _picture_of(container)
    if video is None or not video.duration or not video.time_base:
        return None
    if "mp4" not in container.format.name or not container.duration:
        return None
    return min(container.duration / av.time_base, float(video.duration * video.time_base))


def _picture_of(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not the cover of an album."""
    cover = Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)
