"""Devices that are captured: each is opened and read in a thread of its own, and tried again when it vanishes."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sysconfig
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from streamfx.core.backoff import Backoff
from streamfx.core.clock import Clock
from streamfx.core.errors import SourceError, StreamFXError
from streamfx.core.timeline import SlidingExtreme

logger = logging.getLogger(__name__)

_EARLIEST, _LATEST = -0.05, 1.0
"""Seconds from capture to us that are believed of a device's timestamps."""
_NOTHING_YET = 0.005
_SILENCE = 10.0
"""Seconds after which a device that only ever says "nothing yet" is given up."""
_SOUND_AHEAD = 2.0
"""Seconds of sound that wait at most."""
_ALSA_FOLDERS = (f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}/alsa-lib", "/usr/lib64/alsa-lib")


@dataclass(frozen=True, slots=True)
class Target:
    """What FFmpeg is told to open. ``label``: for people."""

    label: str
    format: str
    place: str
    options: dict[str, str] = field(default_factory=dict)


def open_device(target: Target) -> InputContainer:
    """Opens it by FFmpeg. Raises what PyAV raises."""
    if target.format == "alsa":
        _hush_alsa()
    return av.open(target.place, format=target.format, options=target.options)


def find_alsa() -> None:
    """Tells the ALSA library in PyAV's package, which looks in folders of the machine that it was built on, where this
    system's settings and plugins are."""
    if Path("/usr/share/alsa").is_dir():
        os.environ.setdefault("ALSA_CONFIG_DIR", "/usr/share/alsa")
    found = [folder for folder in _ALSA_FOLDERS if Path(folder).is_dir()]
    os.environ.setdefault("ALSA_PLUGIN_DIR", found[0] if found else "/usr/lib/alsa-lib")


_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)
_SAY_NOTHING = _Handler(lambda *words: None)


def _hush_alsa() -> None:
    """Keeps ALSA's libraries from writing to stderr, beside the sentence that we say."""
    with contextlib.suppress(OSError, AttributeError):
        words = Path("/proc/self/maps").read_text().split()
        for path in {word for word in words if "/libasound" in word and ".so" in word and "_module_" not in word}:
            ctypes.CDLL(path).snd_lib_error_set_handler(_SAY_NOTHING)


class CaptureTimes:
    """A camera's timestamps to seconds of the session's clock. Devices stamp with the clock that runs since boot (which
    is ours), with the time of day, or from when they were opened: which it is, the first stamp tells."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def map(self, stamp: float, now: float, of_day: float) -> float:
        """When what carries ``stamp`` was captured. ``now``: of our clock. ``of_day``: seconds since 1970."""
        if self._offset is None or not _EARLIEST <= now - (stamp + self._offset) <= _LATEST:
            candidates = (0.0, now - of_day)
            believed = [one for one in candidates if _EARLIEST <= now - (stamp + one) <= _LATEST]
            self._offset = believed[0] if believed else now - stamp
        return min(stamp + self._offset, now)


class SoundTimes:
    """When runs of sound were captured. Their samples are counted, since sound servers stamp the first second badly,
    and the count is kept to when the quickest runs of the last seconds came."""

    _WINDOW = 2.0
    _HOLE = 0.15
    _PATIENCE = 0.5

    def __init__(self) -> None:
        self._next: float | None = None
        self._lags = SlidingExtreme(self._WINDOW)
        self._late: tuple[float, float] | None = None
        """Since when every run came later than ``_HOLE``, and by how much the least late one."""

    def map(self, duration: float, now: float) -> float:
        """When the first sample of a run of ``duration`` seconds was captured, that came at ``now``."""
        if self._next is None or now < self._next + duration:  # nothing comes from the future
            self._next = now - duration
        lag = now - (self._next + duration)
        if lag > self._HOLE:
            self._next += self._lost(lag, now)
        else:
            self._late = None
            self._lags.add(now, lag)
            self._next += (self._lags.get() or 0.0) * min(1.0, duration / self._WINDOW)
        start = self._next
        self._next += duration
        return start

    def _lost(self, lag: float, now: float) -> float:
        """Seconds of samples that were lost; 0 while it may be that they are but late."""
        since, least = self._late or (now, lag)
        self._late = since, min(least, lag)
        if now - since < self._PATIENCE:
            return 0.0
        self._late = None
        self._lags.clear()
        return min(least, lag)


Taken = tuple[av.VideoFrame | av.AudioFrame, float, float]
"""What was captured, when, and when it came here: both of the session's clock."""


class Inbox:
    """What recorders hand over to one reader: of pictures only the newest, of sound what came last."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._picture: Taken | None = None
        self._sound: deque[Taken] = deque()
        self._seconds = 0.0
        self.error: StreamFXError | None = None

    def put(self, taken: Taken) -> bool:
        """Never waits. Returns whether something older was lost by it."""
        with self._news:
            if isinstance(taken[0], av.VideoFrame):
                lost = self._picture is not None
                self._picture = taken
            else:
                self._sound.append(taken)
                self._seconds += seconds_of(taken[0])
                lost = self._seconds > _SOUND_AHEAD
                if lost:
                    self._take_sound()
            self._news.notify()
            return lost

    def fail(self, error: StreamFXError) -> None:
        """Ends the reading with an error."""
        with self._news:
            self.error = error
            self._news.notify()

    def take(self, timeout: float) -> Taken | None:
        """Sound before a picture; None if nothing came within ``timeout`` seconds. Raises what ``fail`` was given."""
        with self._news:
            self._news.wait_for(lambda: self.error or self._sound or self._picture, timeout)
            if self.error is not None:
                raise self.error
            if self._sound:
                return self._take_sound()
            taken, self._picture = self._picture, None
            return taken

    def forget_sound(self) -> None:
        with self._news:
            while self._sound:
                self._take_sound()

    def _take_sound(self) -> Taken:
        taken = self._sound.popleft()
        assert isinstance(taken[0], av.AudioFrame)
        self._seconds -= seconds_of(taken[0])
        return taken


def seconds_of(frame: av.AudioFrame) -> float:
    return frame.samples / frame.sample_rate


class Recorder:
    """Reads one device in a thread of its own, from ``start`` to ``stop``.

    ``find``: says what to open, before each attempt; raises ``StreamFXError`` while it is not there. ``explain``: the
    sentence for one that did not open. A device that never gave anything is an error (in the inbox); one
    that did is tried again for ever, 0.5 s to 5 s apart. ``tell``: is told in a few words how it goes. ``counters``: of
    what was lost.
    """

    def __init__(
        self,
        find: Callable[[], Target],
        explain: Callable[[Target, Exception], StreamFXError],
        inbox: Inbox,
        clock: Clock,
        tell: Callable[[str], None],
        counters: Counter[str],
        backoff: Backoff | None = None,
    ) -> None:
        self._find = find
        self._explain = explain
        self._inbox = inbox
        self._clock = clock
        self._tell = tell
        self._counters = counters
        self._backoff = backoff or Backoff(first=0.5, longest=5.0)
        self._ending = threading.Event()
        self._heard = False
        self._label = ""
        self._times, self._sound_times = CaptureTimes(), SoundTimes()
        self.rate: float = 0.0
        """Frames per second, as the device states them; 0: it does not."""
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ends it at its next frame. A device that hangs in the driver is left behind."""
        self._ending.set()
        self._thread.join(timeout)

    def _work(self) -> None:
        ever = False
        while not self._ending.is_set():
            self._heard = False
            try:
                self._record()
                reason = "it gave no more"
            except StreamFXError as error:
                reason = str(error)
                if not ever and not self._heard:
                    self._inbox.fail(error)
                    return
            except (av.FFmpegError, OSError) as error:
                reason = (error.strerror or str(error)).lower()
            except Exception as error:
                logger.debug("device=%s failed", self._label, exc_info=True)
                reason = f"{type(error).__name__}: {error}"
            ever = ever or self._heard
            if self._ending.is_set():
                return
            if not ever:
                self._inbox.fail(SourceError(f"{self._label} gave nothing ({reason}); unplug it and plug it in again"))
                return
            if self._heard:
                self._backoff.reset()
                self._counters["device_lost"] += 1
                self._tell(f"{self._label} is gone ({reason}), waiting for its return")
            self._ending.wait(self._backoff.next())

    def _record(self) -> None:
        """One time from opening to the end. Raises ``StreamFXError`` for what did not open, and what PyAV raises."""
        target = self._find()
        self._label = target.label
        try:
            container = open_device(target)
        except (av.FFmpegError, OSError) as error:
            raise self._explain(target, error) from error
        with container:
            stream = container.streams[0]
            self.rate = float(getattr(stream, "average_rate", None) or getattr(stream, "guessed_rate", None) or 0)
            self._times, self._sound_times, last = CaptureTimes(), SoundTimes(), time.monotonic()
            while not self._ending.is_set():
                try:
                    for packet in container.demux(stream):
                        self._take(packet)
                        last = time.monotonic()
                        if self._ending.is_set():
                            return
                    return
                except av.BlockingIOError:  # macOS' way of saying that there is nothing yet
                    if time.monotonic() - last > _SILENCE:
                        raise
                    self._ending.wait(_NOTHING_YET)

    def _take(self, packet: Packet[Stream]) -> None:
        try:
            frames = [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame | av.AudioFrame)]
        except av.FFmpegError:  # as webcams send on a bad cable
            self._counters["packets_damaged"] += 1
            return
        for frame in frames:
            now = self._clock.now()
            if isinstance(frame, av.AudioFrame):
                captured = self._sound_times.map(seconds_of(frame), now)
            else:
                captured = self._times.map(now if frame.time is None else frame.time, now, time.time())
            if not self._heard:
                self._heard = True
                self._tell(f"capturing {self._label}")
            if self._inbox.put((frame, captured, now)):
                self._counters["frames_dropped"] += 1
