"""Packets to frames: order, loss, wraps, key frames."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfx.media.webrtc.assemble import FrameAssembler, Unit, Unwrapper, is_key, nearest

KEY = b"\x00\x00\x00\x01\x65"
DELTA = b"\x00\x00\x00\x01\x41"


@dataclass
class FakePacket:
    """An H.264 packet after the payload's descriptor was taken off."""

    sequence_number: int
    timestamp: int
    marker: int
    _data: bytes
    payload_type: int = 96


@dataclass
class Bench:
    video: bool = True
    patience: float = 0.15
    depth: int = 512
    now: float = 10.0
    out: list[Unit] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        self.assembler = FrameAssembler(
            self.video,
            lambda: self.now,
            lambda _: "H264" if self.video else "opus",
            self.out.append,
            self.patience,
            self.depth,
        )

    def add(self, *packets: FakePacket) -> None:
        for packet in packets:
            self.asked += self.assembler.add(packet)

    def ticks(self) -> list[int]:
        return [unit.ticks for unit in self.out]


def frame(number: int, first: int, packets: int = 3, key: bool = False) -> list[FakePacket]:
    """The packets of one picture; the first holds the beginning of its slice."""
    start = KEY if key else DELTA
    return [
        FakePacket((first + n) & 0xFFFF, number * 3000 & 0xFFFFFFFF, n == packets - 1, start if n == 0 else bytes([n]))
        for n in range(packets)
    ]


def movie(frames: int, first: int = 100, packets: int = 3, start: int = 0) -> list[FakePacket]:
    return [p for n in range(frames) for p in frame(start + n, first + n * packets, packets, key=n == 0)]


def test_a_frame_is_out_with_its_last_packet() -> None:
    bench = Bench()
    packets = movie(2)
    bench.add(*packets[:2])
    assert bench.out == []
    bench.add(packets[2])
    assert bench.out[0].data == KEY + b"\x01\x02"
    assert bench.out[0].key
    assert bench.out[0].arrived_at == bench.now


def test_frames_without_markers_end_with_the_next() -> None:
    bench = Bench()
    for packet in movie(3):
        packet.marker = 0
        bench.add(packet)
    assert bench.ticks() == [0, 3000]


def test_order_is_restored() -> None:
    bench = Bench()
    packets = movie(4)
    packets[4], packets[7] = packets[7], packets[4]
    bench.add(*packets)
    assert bench.ticks() == [0, 3000, 6000, 9000]
    assert bench.assembler.lost == 0


def test_a_retransmission_in_time_costs_nothing() -> None:
    bench = Bench()
    packets = movie(4)
    late = packets.pop(5)
    bench.add(*packets)
    assert bench.ticks() == [0]
    bench.now += 0.1
    bench.add(late)
    assert bench.ticks() == [0, 3000, 6000, 9000]
    assert bench.asked == 0


def test_after_a_loss_pictures_wait_for_a_key_frame() -> None:
    bench = Bench()
    packets = movie(4)
    del packets[5]
    bench.add(*packets)
    bench.now += 0.2
    bench.add(*frame(4, 112), *frame(5, 115))
    assert bench.ticks() == [0]
    assert bench.asked == 1
    bench.now += 0.6
    bench.add(*frame(6, 118))
    assert bench.asked == 2
    bench.add(*frame(7, 121, key=True), *frame(8, 124))
    assert bench.ticks() == [0, 7 * 3000, 8 * 3000]
    assert bench.asked == 2


def test_a_key_frame_behind_the_gap_is_used() -> None:
    bench = Bench()
    packets = movie(2)
    bench.add(*packets[:4])
    bench.add(*frame(2, 106, key=True))
    bench.now += 0.2
    bench.add(*frame(3, 109))
    assert bench.ticks() == [0, 6000, 9000]


def test_nothing_is_shown_before_the_first_key_frame() -> None:
    bench = Bench()
    bench.add(*frame(0, 10), *frame(1, 13))
    assert bench.out == []
    assert bench.asked == 1
    bench.add(*frame(2, 16, key=True))
    assert bench.ticks() == [6000]


def test_sequence_numbers_and_timestamps_wrap() -> None:
    bench = Bench()
    start = (1 << 32) // 3000 - 2
    bench.add(*movie(8, first=65_530, start=start))
    assert len(bench.out) == 8
    assert [b - a for a, b in zip(bench.ticks(), bench.ticks()[1:], strict=False)] == [3000] * 7


def test_a_sender_that_begins_anew() -> None:
    bench = Bench()
    bench.add(*movie(3, first=100), *movie(3, first=40_000, start=50))
    assert len(bench.out) == 6


def test_sound_goes_on_after_a_loss() -> None:
    bench = Bench(video=False, patience=0.06, depth=3)
    packets = [FakePacket(n, n * 960, 0, b"x") for n in range(20)]
    del packets[7]
    bench.add(*packets)
    assert bench.ticks() == [n * 960 for n in range(20) if n != 7]
    assert bench.asked == 0
    assert bench.assembler.lost == 1


def test_need_key_drops_up_to_the_next() -> None:
    bench = Bench()
    bench.add(*movie(2))
    bench.assembler.need_key()
    bench.add(*frame(2, 106), *frame(3, 109, key=True))
    assert bench.ticks() == [0, 3000, 9000]


@given(
    st.integers(0, 65_535),
    st.lists(st.integers(0, 9), min_size=60, max_size=60),
    st.integers(0, 1 << 31),
    st.integers(1, 4),
)
@settings(max_examples=80, deadline=None)
def test_whatever_the_network_does(first: int, fates: list[int], seed: int, size: int) -> None:
    """Loss, duplicates, reordering: frames stay in order, whole, and none refers to one that was lost."""
    rng = random.Random(seed)
    sent = [p for n in range(60) for p in frame(n, first + n * size, size, key=n % 10 == 0)]
    arrived: list[tuple[float, FakePacket]] = []
    for n, packet in enumerate(sent):
        fate = fates[n % 60]
        if fate == 0 and rng.random() < 0.5:
            continue
        arrived.append((n + rng.random() * (8 if fate == 1 else 0.5), packet))
        if fate == 2:
            arrived.append((n + 3.0, packet))
    bench = Bench()
    for at, packet in sorted(arrived, key=lambda entry: entry[0]):
        bench.now = 10 + at / 90
        bench.add(packet)
    ticks = bench.ticks()
    assert ticks == sorted(set(ticks))
    whole = {p.timestamp: b"".join(q._data for q in sent if q.timestamp == p.timestamp) for p in sent}
    previous = None
    for unit in bench.out:
        assert unit.data == whole[unit.ticks & 0xFFFFFFFF]
        assert unit.key or previous == unit.ticks - 3000
        previous = unit.ticks
    assert len(bench.assembler._waiting) < 2048


@given(st.binary(max_size=40))
def test_any_bytes_may_be_asked_for_a_key(data: bytes) -> None:
    is_key("H264", data)
    is_key("VP8", data)


def test_key_frames_are_known() -> None:
    assert is_key("VP8", b"\x10\x02\x00\x9d\x01\x2a" + bytes(10))
    assert not is_key("VP8", b"\x11\x02\x00\x9d\x01\x2a" + bytes(10))
    assert is_key("H264", b"\x00\x00\x00\x01\x09\x10\x00\x00\x01\x67\x42")
    assert not is_key("H264", b"\x00\x00\x00\x01\x41\x9a")


@given(st.lists(st.integers(-(1 << 30), 1 << 30), max_size=50), st.integers(0, 0xFFFFFFFF))
def test_unwrapping_follows_any_walk(steps: list[int], start: int) -> None:
    unwrapper, true = Unwrapper(), start
    assert unwrapper.unwrap(start) == start
    for step in steps:
        true += step
        assert unwrapper.unwrap(true & 0xFFFFFFFF) == true
    assert nearest(true & 0xFFFFFFFF, true) == true


@pytest.mark.parametrize("count", [3000])
def test_what_waits_is_bounded(count: int) -> None:
    bench = Bench(patience=1e9)
    bench.add(*movie(1))
    for n in range(count):
        bench.add(FakePacket((200 + n) & 0xFFFF, 3000 * n, 1, DELTA))
    assert len(bench.assembler._waiting) <= 2048
