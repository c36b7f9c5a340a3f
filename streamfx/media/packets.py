"""Encoded pictures and sound on their way to one target: what is kept, what is dropped, and where it begins."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

VIDEO_TICKS = 90_000
"""Time base of pictures: whole ticks a frame at 24, 25, 30, 50, 60 and the NTSC rates."""

AUDIO_TICKS = 48_000
"""Time base of sound: a sample. As ``AUDIO_RATE``, whose module brings numpy along, which a sender has no use for."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture, or a run of sound. Times in ticks: 90 kHz for pictures, 48 kHz for sound."""

    video: bool
    data: bytes
    pts: int
    dts: int
    duration: int
    key: bool

    def since(self, origin: int) -> Packet:
        """The same, with times that count from ``origin`` (in 90 kHz ticks)."""
        shift = origin if self.video else round(origin * AUDIO_TICKS / VIDEO_TICKS)
        return replace(self, pts=self.pts - shift, dts=self.dts - shift)


class PacketQueue:
    """Packets that wait for a target, at most ``seconds`` and ``size`` bytes of pictures, and half as long again of
    sound.

    It begins with a key frame, whose time is 0. When it is full, the oldest pictures go, up to the next key frame: what
    comes out can always be decoded. Sound goes on: the room that they made is its to catch up in. If there is too much
    of it even so, half of that goes at once, for one gap is better than many.

    ``dropped``: pictures lost for want of room. ``missed``: pictures that came before the first key frame.
    """

    def __init__(self, seconds: float = 4.0, size: int = 6 << 20) -> None:
        self._longest = seconds
        self._largest = size
        self._pictures: deque[tuple[int, Packet]] = deque()
        self._sound: deque[tuple[int, Packet]] = deque()
        self._count = 0
        self._size = 0
        self._origin: int | None = None
        self._needs_key = True
        self._last_sound = -1
        self.dropped = 0
        self.missed = 0

    @property
    def pictures(self) -> int:
        """How many wait."""
        return len(self._pictures)

    def put(self, packet: Packet) -> None:
        """Takes a packet; what cannot be decoded without one that was dropped goes as well."""
        self._count += 1
        if packet.video:
            self._put_picture(packet)
        elif self._origin is not None and packet.since(self._origin).pts >= 0 and packet.dts > self._last_sound:
            self._last_sound = packet.dts
            self._sound.append((self._count, packet))
            if self._span(self._sound, AUDIO_TICKS) > 1.5 * self._longest:
                while self._span(self._sound, AUDIO_TICKS) > 0.75 * self._longest:
                    self._sound.popleft()

    def pop(self) -> Packet | None:
        """The oldest, with times that count from the first key frame."""
        assert self._origin is not None or not (self._pictures or self._sound)
        if not self._pictures and not self._sound:
            return None
        if not self._sound or (self._pictures and self._pictures[0] < self._sound[0]):
            packet = self._pop_picture()
        else:
            packet = self._sound.popleft()[1]
        return packet.since(self._origin or 0)

    def cut(self) -> None:
        """What comes next is of another encoder: it goes on with a key frame of that."""
        self._needs_key = True

    def _put_picture(self, packet: Packet) -> None:
        if self._needs_key and not packet.key:
            if self._origin is None:
                self.missed += 1
            else:
                self.dropped += 1
            return
        self._needs_key = False
        if self._origin is None:
            self._origin = packet.dts
        self._pictures.append((self._count, packet))
        self._size += len(packet.data)
        while self._size > self._largest or self._span(self._pictures, VIDEO_TICKS) > self._longest:
            self._drop_oldest_group()

    def _drop_oldest_group(self) -> None:
        """What is left of it: up to the next key frame."""
        self._pop_picture()
        self.dropped += 1
        while self._pictures and not self._pictures[0][1].key:
            self._pop_picture()
            self.dropped += 1
        self._needs_key = not self._pictures

    def _pop_picture(self) -> Packet:
        packet = self._pictures.popleft()[1]
        self._size -= len(packet.data)
        return packet

    @staticmethod
    def _span(lane: deque[tuple[int, Packet]], rate: int) -> float:
        return (lane[-1][1].dts - lane[0][1].dts) / rate if lane else 0.0


class KeyFrames:
    """When to make a key frame for one who joins: at once, but not within ``apart`` seconds of the last such."""

    def __init__(self, apart: float = 2.0) -> None:
        self._apart = apart
        self._wanted = False
        self._last = float("-inf")

    def ask(self) -> None:
        """Somebody waits for one."""
        self._wanted = True

    def made(self) -> None:
        """There was one: nobody waits any more."""
        self._wanted = False

    def due(self, pts: float) -> bool:
        """Whether the picture at ``pts`` seconds is to become one."""
        if not self._wanted or pts - self._last < self._apart - 1e-6:
            return False
        self._wanted = False
        self._last = pts
        return True
