"""What a WebRTC publisher sends: packets to frames, decoded in threads of its own, delivered at the door."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import av
from aiortc import RTCRtpReceiver

from streamfx.core.clock import Clock
from streamfx.core.frames import AUDIO_RATE, AudioFrame, Frame, VideoFrame
from streamfx.media.convert import AudioConverter, VideoConverter
from streamfx.media.door import Visit
from streamfx.media.webrtc import compat
from streamfx.media.webrtc.assemble import FrameAssembler, Unit
from streamfx.media.webrtc.timing import Lane, SenderTimes

logger = logging.getLogger(__name__)

_PATIENCE: dict[Lane, float] = {"video": 0.15, "audio": 0.06}
_DEPTH: dict[Lane, int] = {"video": 512, "audio": 3}
_MOST_WAITING: dict[Lane, int] = {"video": 30, "audio": 50}
NO_FRAME_FOR = 0.5
"""Seconds without a picture until the sender is asked for a key frame; doubled each time it does not help."""
_LONGEST_PAUSE = 8.0

_DECODERS = {"H264": "h264", "VP8": "vp8", "opus": "libopus"}


class Decoder:
    """Decodes one lane. Runs in a thread; damaged frames are counted in ``broken`` and skipped."""

    def __init__(self, lane: Lane, times: SenderTimes) -> None:
        self._lane = lane
        self._times = times
        self._codec = ""
        self._context: av.VideoCodecContext | av.AudioCodecContext | None = None
        self._sound = AudioConverter()
        self._pictures = VideoConverter()
        self._size = (0, 0)
        self._arrivals: OrderedDict[int, float] = OrderedDict()
        self._sequence = 0
        self.broken = 0

    def decode(self, unit: Unit) -> list[tuple[Frame, float | None]]:
        """Frames, each with its capture time by the sender's clock (seconds since 1970) if that is known."""
        if unit.codec != self._codec:
            self._context, self._codec = _open(unit.codec), unit.codec
        try:
            return self._video(unit) if self._lane == "video" else self._audio(unit)
        except (av.FFmpegError, ValueError) as error:
            self.broken += 1
            logger.debug("lane=%s skipped error=%s", self._lane, error)
            return []

    def close(self) -> None:
        """Lets go of codec and converters, and so of their threads: the garbage collector would take its time."""
        self._context, self._codec = None, ""
        self._pictures, self._sound = VideoConverter(), AudioConverter()

    def _video(self, unit: Unit) -> list[tuple[Frame, float | None]]:
        context = self._context
        if not isinstance(context, av.VideoCodecContext):
            return []
        self._arrivals[unit.ticks] = unit.arrived_at
        if len(self._arrivals) > 64:
            self._arrivals.popitem(last=False)
        packet = av.Packet(unit.data)
        packet.pts = packet.dts = unit.ticks
        frames: list[tuple[Frame, float | None]] = []
        for picture in context.decode(packet):
            ticks = picture.pts if picture.pts is not None else unit.ticks
            arrived_at = self._arrivals.get(ticks, unit.arrived_at)
            if (picture.width, picture.height) != self._size:
                # A converter keeps the size of its first picture; senders change theirs as the network goes.
                self._size, self._pictures = (picture.width, picture.height), VideoConverter()
            pixels = self._pictures.convert(picture)
            pts = self._times.pts("video", ticks, arrived_at)
            frame = VideoFrame(pixels, pts, arrived_at, self._sequence)
            self._sequence += 1
            frames.append((frame, self._times.captured("video", ticks)))
        return frames

    def _audio(self, unit: Unit) -> list[tuple[Frame, float | None]]:
        context = self._context
        if not isinstance(context, av.AudioCodecContext):
            return []
        pts = self._times.pts("audio", unit.ticks, unit.arrived_at)
        frames: list[tuple[Frame, float | None]] = []
        for sound in context.decode(av.Packet(unit.data)):
            for samples in self._sound.convert(sound):
                frames.append((AudioFrame(samples, pts, unit.arrived_at), None))
                pts += samples.shape[1] / AUDIO_RATE
        return frames


class Inbound:
    """One track of a publisher, from its receiver to the door. ``run`` beside the peer."""

    def __init__(self, receiver: RTCRtpReceiver, lane: Lane, times: SenderTimes, visit: Visit, clock: Clock) -> None:
        self.lane = lane
        self._receiver = receiver
        self._visit = visit
        self._clock = clock
        self._decoder = Decoder(lane, times)
        self._units: deque[Unit] = deque()
        self._news = asyncio.Event()
        self._names: dict[int, str] = {}
        self._dropped = 0
        self.frames = 0
        self.assembler = FrameAssembler(
            video=lane == "video",
            now=clock.now,
            codec_of=self._codec_of,
            emit=self._take,
            patience=_PATIENCE[lane],
            depth=_DEPTH[lane],
        )
        on_report: Callable[[int, float], None] = lambda rtp, ntp: times.report(lane, rtp, ntp)  # noqa: E731
        compat.take_over_receiver(receiver, self.assembler, on_report)

    def stats(self) -> dict[str, int]:
        """What was decoded and what was lost."""
        return {
            "frames": self.frames,
            "lost": self.assembler.lost,
            "broken": self._decoder.broken,
            "dropped": self._dropped,
        }

    async def run(self) -> None:
        """Decodes until cancelled."""
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"webrtc-{self.lane}")
        try:
            while True:
                while not self._units:
                    self._news.clear()
                    await self._news.wait()
                unit = self._units.popleft()
                for frame, captured in await loop.run_in_executor(thread, self._decoder.decode, unit):
                    self.frames += 1
                    self._visit.deliver(frame, captured)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
            self._decoder.close()

    async def watch(self) -> None:
        """Asks for a key frame when no picture has come for a while, until cancelled."""
        pause = NO_FRAME_FOR
        while True:
            await asyncio.sleep(pause / 2)
            now, emitted = self._clock.now(), self.assembler.emitted_at
            if emitted is not None and now - emitted < NO_FRAME_FOR:
                pause = NO_FRAME_FOR
            elif self.assembler.heard_at is not None and self.assembler.may_ask(now):
                await compat.ask_for_key_frame(self._receiver)
                pause = min(_LONGEST_PAUSE, 2 * pause)

    def _codec_of(self, payload_type: int) -> str:
        if payload_type not in self._names:
            self._names = compat.codec_names(self._receiver)
        return self._names.get(payload_type, "")

    def _take(self, unit: Unit) -> None:
        """Queues a frame for the decoder. When it cannot keep up, what waits goes, up to the next key frame."""
        if len(self._units) >= _MOST_WAITING[self.lane]:
            self._dropped += len(self._units)
            self._units.clear()
            if self.lane == "video" and not unit.key:
                self._dropped += 1
                self.assembler.need_key()
                return
        self._units.append(unit)
        self._news.set()


def _open(codec: str) -> av.VideoCodecContext | av.AudioCodecContext | None:
    name = _DECODERS.get(codec)
    if name is None:
        return None
    context = av.CodecContext.create(name, "r")
    if isinstance(context, av.VideoCodecContext):
        # Threads by frame would hold a frame back for each thread.
        context.thread_type = "SLICE"
        return context
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = AUDIO_RATE
    context.layout = "stereo"
    return context
