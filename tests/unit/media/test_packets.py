"""What waits for a target: it begins at a key frame, and whatever is dropped, what comes out can be decoded."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from streamfx.media.packets import AUDIO_TICKS, VIDEO_TICKS, KeyFrames, Packet, PacketQueue

FPS, GOP = 30, 60
FRAME = VIDEO_TICKS // FPS


def picture(n: int, size: int = 1000, gop: int = GOP) -> Packet:
    """Picture ``n`` of a stream with a key frame every ``gop`` pictures; its number is its content."""
    return Packet(True, n.to_bytes(4, "big") + bytes(size - 4), n * FRAME, n * FRAME, FRAME, n % gop == 0)


def sound(n: int) -> Packet:
    """Run ``n`` of 1024 samples."""
    return Packet(False, n.to_bytes(4, "big"), n * 1024, n * 1024, 1024, True)


def number(packet: Packet) -> int:
    return int.from_bytes(packet.data[:4], "big")


def drain(queue: PacketQueue) -> list[Packet]:
    return list(iter(queue.pop, None))


def test_begins_with_a_key_frame_at_time_zero() -> None:
    queue = PacketQueue()
    for n in range(50, 70):
        queue.put(sound(n * 1600 // 1024))
        queue.put(picture(n))
    packets = drain(queue)
    pictures, runs = [p for p in packets if p.video], [p for p in packets if not p.video]
    assert (packets[0].video, packets[0].key, packets[0].pts, packets[0].dts) == (True, True, 0, 0)
    assert [number(p) for p in pictures] == list(range(60, 70))
    assert queue.missed == 10
    assert queue.dropped == 0
    assert 0 <= runs[0].pts < 2 * 1024
    offset = runs[0].pts / AUDIO_TICKS - number(runs[0]) * 1024 / AUDIO_TICKS
    assert offset == pytest.approx(-60 / FPS, abs=1e-4), "picture and sound were moved alike"


def test_full_queue_goes_on_at_the_next_key_frame() -> None:
    queue = PacketQueue(seconds=4)
    for n in range(130):
        queue.put(picture(n))
        if n == 10:
            assert [number(p) for p in (queue.pop(), queue.pop()) if p] == [0, 1]
    assert [number(p) for p in drain(queue)] == list(range(60, 130)), "the rest of the first group was dropped"
    assert queue.dropped == 58


def test_a_group_that_was_begun_is_dropped_to_its_end() -> None:
    """Without a key frame in the queue, what follows cannot be decoded either."""
    queue = PacketQueue(seconds=1)
    for n in range(45):
        queue.put(picture(n))
    assert queue.dropped == 45
    assert queue.pictures == 0
    for n in range(45, 70):
        queue.put(picture(n))
    assert [number(p) for p in drain(queue)] == list(range(60, 70))
    assert queue.dropped == 60


def test_bytes_are_bounded() -> None:
    queue = PacketQueue(size=100_000)
    for n in range(300):
        queue.put(picture(n, size=1000 if n % GOP else 20_000))
    assert sum(len(p.data) for p in drain(queue)) <= 100_000


def test_sound_goes_on_when_pictures_are_dropped() -> None:
    queue = PacketQueue(seconds=4, size=50_000)
    runs = 0
    queue.put(picture(0))
    for n in range(90):
        queue.put(sound(n))
        queue.put(picture(n + 1))
    runs = [number(p) for p in drain(queue) if not p.video]
    assert queue.dropped > 0
    assert runs == list(range(90))


def test_too_much_sound_leaves_one_gap() -> None:
    queue = PacketQueue(seconds=4)
    queue.put(picture(0))
    for n in range(1000):
        queue.put(sound(n))
    runs = [number(p) for p in drain(queue) if not p.video]
    assert runs == list(range(runs[0], 1000)), "the newest, without a hole"
    assert 3 <= len(runs) * 1024 / AUDIO_TICKS <= 6.1


def test_another_encoder_goes_on_with_its_key_frame() -> None:
    queue = PacketQueue()
    queue.put(picture(0))
    queue.put(picture(1))
    queue.put(sound(5))
    queue.cut()
    queue.put(picture(7))
    queue.put(sound(5))
    queue.put(picture(60))
    assert [(p.video, number(p)) for p in drain(queue)] == [(True, 0), (True, 1), (False, 5), (True, 60)]
    assert queue.dropped == 1


@pytest.mark.parametrize("seed", range(20))
def test_never_a_picture_without_its_references(seed: int) -> None:
    """However slow the target: after a gap comes a key frame, in order, and nothing is unaccounted for."""
    rng = random.Random(seed)
    queue = PacketQueue(seconds=rng.choice([0.5, 2, 4]), size=rng.choice([20_000, 200_000]))
    gop = rng.choice([15, 60, 100])
    out: list[Packet] = []
    for n in range(600):
        queue.put(picture(n, size=rng.randrange(500, 1500), gop=gop))
        while rng.random() < 0.4 and (packet := queue.pop()):
            out.append(packet)
        if rng.random() < 0.01:
            queue.cut()
    out += drain(queue)
    numbers = [number(p) for p in out]
    assert numbers == sorted(numbers)
    assert all(later.key or number(later) == number(earlier) + 1 for earlier, later in pairwise(out))
    assert len(out) + queue.dropped + queue.missed == 600


def test_key_frames_on_demand_are_apart() -> None:
    keys = KeyFrames(apart=2.0)
    assert not keys.due(0.0)
    keys.ask()
    assert keys.due(0.1)
    assert not keys.due(0.2), "nobody asked again"
    keys.ask()
    assert [t / 10 for t in range(3, 40) if keys.due(t / 10)] == [2.1]
    keys.ask()
    keys.made()
    assert not keys.due(9.0), "there was one anyway"
