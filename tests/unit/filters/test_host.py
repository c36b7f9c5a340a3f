"""One filter, set up: what goes in, what comes out, and what is not taken."""

from __future__ import annotations

import numpy as np
import pytest

from streamfx.core.errors import FilterError
from streamfx.filters.base import Block
from streamfx.filters.host import FilterHost, FilterSpec
from streamfx.filters.resize import resize_block, working_size

HERE = "tests.unit.filters.sample_filters"


def host(name: str, size: tuple[int, int] = (16, 8), **params: object) -> FilterHost:
    return FilterHost(FilterSpec(f"{HERE}:{name}", size, 30.0, 1, params))


def block(count: int = 2, size: tuple[int, int] = (16, 8), value: int = 10) -> Block:
    return Block(video=np.full((count, size[1], size[0], 3), value, np.uint8), pts=tuple(range(count)))


def test_filters_a_block() -> None:
    out = host("Tricky", add=5).run(block(), 1.0).frames
    assert out.shape == (2, 8, 16, 3)
    assert (out[:, 1:] == 15).all()


def test_parameters_change_as_a_whole() -> None:
    subject = host("Tricky")
    subject.configure({"trick": "none", "add": 9})
    assert subject.run(block(), 1.0).frames[0, 1, 1, 1] == 19


def test_reset_reaches_the_filter() -> None:
    subject = host("Tricky")
    subject.reset()
    subject.reset()
    assert subject.run(block(), 1.0).frames[0, 0, 0, 0] == 2


@pytest.mark.parametrize(
    ("trick", "sentence"),
    [
        ("raise", "filter 'tricky' failed: ValueError: no such luck"),
        ("shape", r"returned uint8 \(2, 8, 16\)"),
        ("dtype", r"returned float32 \(2, 8, 16, 3\)"),
        ("count", "returned 1 frames with 2 pts"),
        ("more", "returned 3 frames for 2"),
        ("missing", "returned NoneType"),
        ("foreign", "returned a frame for pts 9, which it was not given"),
    ],
)
def test_what_a_filter_does_wrong_is_a_sentence(trick: str, sentence: str) -> None:
    subject = host("Tricky", trick=trick)
    with pytest.raises(FilterError, match=sentence):
        subject.run(block(), 1.0)
    subject.configure({"trick": "none"})
    assert subject.run(block(), 1.0).frames.shape == (2, 8, 16, 3)


def given_by(subject: FilterHost, first: int, count: int = 2) -> list[tuple[float, int]]:
    """(pts, value) of what comes out for frames whose value is their pts."""
    moments = tuple(float(n) for n in range(first, first + count))
    video = np.stack([np.full((8, 16, 3), int(n), np.uint8) for n in moments])
    out = subject.run(Block(video=video, pts=moments), 1.0)
    return [(pts, int(picture[0, 0, 0])) for pts, picture in zip(out.pts, out.frames, strict=True)]


def test_a_late_filter_says_whose_pictures_it_gives() -> None:
    subject = host("Late", lag=3)
    assert given_by(subject, 0) == []
    assert given_by(subject, 2) == [(0, 0)]
    assert given_by(subject, 4) == [(1, 1), (2, 2)]
    subject.configure({"lag": 1})
    assert given_by(subject, 6) == [(5, 5), (6, 6)], "what it leaves out is not missed"
    subject.configure({"lag": 0})
    assert given_by(subject, 8) == [(8, 8), (9, 9)]


def test_after_a_reset_nothing_from_before_is_taken() -> None:
    subject = host("Late", lag=3)
    given_by(subject, 0)
    given_by(subject, 2)
    subject.reset()
    assert given_by(subject, 4) == []
    assert given_by(subject, 6) == [(4, 4)]


def test_running_out_of_memory_passes_through() -> None:
    with pytest.raises(MemoryError):
        host("Tricky", trick="memory").run(block(), 1.0)


def test_a_set_up_that_fails_is_a_sentence() -> None:
    with pytest.raises(FilterError, match="filter 'untrained' cannot be set up: RuntimeError: weights are missing"):
        host("Untrained")


@pytest.mark.parametrize("size", [(16, 8), (64, 64)])
def test_what_a_filter_is_given_is_read_only_and_stays_as_it_was(size: tuple[int, int]) -> None:
    given = block(1, size)
    with pytest.raises(FilterError, match="read-only"):
        host("Greedy", size).run(given, 1.0)
    assert (given.frames == 10).all()
    assert given.frames.flags.writeable, "the caller's own array is not touched"


@pytest.mark.parametrize(("scale", "width"), [(1.0, 64), (0.5, 32), (0.25, 16)])
def test_under_pressure_it_works_at_a_smaller_size(scale: float, width: int) -> None:
    out = host("AnySize", (64, 48)).run(block(1, (64, 48)), scale).frames
    assert out.shape == (1, 48, 64, 3)
    assert (out == width).all()


@pytest.mark.parametrize(("scale", "width"), [(1.0, 32), (0.5, 16)])
def test_a_filter_with_sizes_gets_the_nearest(scale: float, width: int) -> None:
    out = host("Sized", (34, 30)).run(block(1, (34, 30)), scale).frames
    assert out.shape == (1, 30, 34, 3)
    assert (out == width).all()


def test_resize_keeps_means_and_touches_nothing_without_need() -> None:
    video = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert resize_block(video, (64, 64)) is video
    small = resize_block(video, (16, 32))
    assert small.shape == (2, 32, 16, 3)
    assert small.mean() == pytest.approx(video.mean(), abs=0.6)
    assert resize_block(small, (100, 50)).shape == (2, 50, 100, 3)


def test_working_size_is_never_nothing() -> None:
    assert working_size((3, 1), (), 0.25) == (1, 1)
    assert working_size((640, 360), (), 0.5) == (320, 180)
    assert working_size((640, 360), ((256, 256), (512, 512)), 1.0) == (512, 512)
