"""RTP packets to whole encoded frames: in order, at once when complete, with damaged pictures left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_HALF = 1 << 15
_RESET_DISTANCE = 3000
_CAPACITY = 2048


class Packet(Protocol):
    """What is looked at of an RTP packet (RFC 3550). ``_data``: its payload without the codec's descriptor."""

    sequence_number: int
    timestamp: int
    marker: int
    payload_type: int
    _data: bytes


@dataclass(frozen=True, slots=True)
class Unit:
    """One encoded frame. ``codec``: "H264", "VP8", "opus", …; H.264 in Annex B. ``ticks``: RTP timestamp without its
    wraps. ``arrived_at``: clock seconds at which its last packet came."""

    codec: str
    data: bytes
    ticks: int
    key: bool
    arrived_at: float


class Unwrapper:
    """Counts on where a 32 bit timestamp wraps."""

    def __init__(self) -> None:
        self.last: int | None = None

    def unwrap(self, timestamp: int) -> int:
        """The value nearest to the last one."""
        ticks = timestamp if self.last is None else nearest(timestamp, self.last)
        self.last = ticks
        return ticks


def nearest(timestamp: int, reference: int) -> int:
    """The number nearest to ``reference`` that is ``timestamp`` modulo 2³²."""
    difference = (timestamp - reference) & 0xFFFFFFFF
    return reference + (difference - (1 << 32) if difference >= 1 << 31 else difference)


class FrameAssembler:
    """Puts one track's packets in order and hands every whole frame on as soon as its last packet is there.

    A gap is waited for (a retransmission may fill it): ``patience`` seconds, or until ``depth`` later packets are here.
    Then it is given up: for video, pictures are left out until the next key frame, for one that refers to a missing
    one is garbage. ``add`` says when to ask for a key frame, at most every ``ask_every`` seconds.
    """

    def __init__(
        self,
        video: bool,
        now: Callable[[], float],
        codec_of: Callable[[int], str],
        emit: Callable[[Unit], None],
        patience: float,
        depth: int,
        ask_every: float = 0.5,
    ) -> None:
        self._video = video
        self._now = now
        self._codec_of = codec_of
        self._emit = emit
        self._patience = patience
        self._depth = depth
        self._ask_every = ask_every
        self._waiting: dict[int, Packet] = {}
        self._next: int | None = None
        self._gap_since: float | None = None
        self._parts: list[Packet] = []
        self._ticks = Unwrapper()
        self._need_key = video
        self._ask = False
        self._asked_at = float("-inf")
        self.heard_at: float | None = None
        """Clock seconds of the last packet."""
        self.emitted_at: float | None = None
        """Clock seconds of the last whole frame."""
        self.lost = 0
        """Frames that were given up because packets were missing, or what they refer to."""

    def add(self, packet: Packet) -> bool:
        """Takes a packet. Returns whether the sender should be asked for a key frame."""
        self.heard_at = now = self._now()
        self._store(packet)
        self._drain(now)
        if self._gap_is_hopeless(now):
            self._give_up()
            self._drain(now)
        return self._ask and self.may_ask(now)

    def need_key(self) -> None:
        """Pictures are of no use before the next key frame: one was thrown away behind here."""
        self._need_key = self._ask = True

    def may_ask(self, now: float) -> bool:
        """Whether a key frame may be asked for now; counts as asked if so."""
        if now - self._asked_at < self._ask_every:
            return False
        self._asked_at = now
        return True

    def _store(self, packet: Packet) -> None:
        number = packet.sequence_number
        if self._next is None:
            self._next = number
        ahead = (number - self._next) & 0xFFFF
        if ahead >= _HALF:
            if (self._next - number) & 0xFFFF < _RESET_DISTANCE:
                return  # a duplicate, or one that was given up
            self._restart(number)
        elif ahead > _CAPACITY:
            self._restart(number)
        self._waiting[number] = packet

    def _restart(self, number: int) -> None:
        """The sender began anew somewhere else."""
        self._waiting.clear()
        self._parts = []
        self._next = number
        self._need_key = self._video

    def _drain(self, now: float) -> None:
        assert self._next is not None
        while (packet := self._waiting.pop(self._next, None)) is not None:
            self._next = (self._next + 1) & 0xFFFF
            if self._parts and self._parts[0].timestamp != packet.timestamp:
                self._finish(now)  # of senders that set no marker
            self._parts.append(packet)
            if packet.marker or not self._video:
                self._finish(now)
        if not self._waiting:
            self._gap_since = None
        elif self._gap_since is None:
            self._gap_since = now

    def _finish(self, now: float) -> None:
        parts, self._parts = self._parts, []
        data = b"".join(part._data for part in parts)
        if not data:
            return
        codec = self._codec_of(parts[0].payload_type)
        key = not self._video or is_key(codec, data)
        if self._need_key and not key:
            self.lost += 1
            self._ask = True
            return
        self._need_key = self._ask = False
        self.emitted_at = now
        self._emit(Unit(codec, data, self._ticks.unwrap(parts[0].timestamp), key, now))

    def _gap_is_hopeless(self, now: float) -> bool:
        if self._gap_since is None:
            return False
        return now - self._gap_since >= self._patience or len(self._waiting) > self._depth

    def _give_up(self) -> None:
        """Goes on behind the gap; of a picture that began before it or in it, nothing is used."""
        assert self._next is not None
        base = self._next
        self._next = min(self._waiting, key=lambda number: (number - base) & 0xFFFF)
        self._gap_since = None
        self.lost += 1
        self._parts = []
        if self._video:
            self.need_key()
            self._skip_partial()

    def _skip_partial(self) -> None:
        """Drops the rest of a picture whose beginning may be missing, unless it is seen to begin a key frame."""
        assert self._next is not None
        first = self._waiting[self._next]
        if is_key(self._codec_of(first.payload_type), first._data):
            return
        while (packet := self._waiting.get(self._next)) is not None and packet.timestamp == first.timestamp:
            del self._waiting[self._next]
            self._next = (self._next + 1) & 0xFFFF


def is_key(codec: str, data: bytes) -> bool:
    """Whether a frame (or its beginning) can be decoded without any before it: VP8 by its frame tag (RFC 6386, 9.1),
    H.264 by an IDR slice or a sequence parameter set."""
    if codec == "VP8":
        return len(data) > 9 and not data[0] & 1 and data[3:6] == b"\x9d\x01\x2a"
    position = data.find(b"\x00\x00\x01")
    while position >= 0 and position + 3 < len(data):
        kind = data[position + 3] & 0x1F
        if kind in (5, 7):
            return True
        if kind == 1:
            return False
        position = data.find(b"\x00\x00\x01", position + 3)
    return False
