"""Pictures waiting for their slot."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamfx.pipeline.shelf import Picture, Shelf

PIXELS = np.zeros((2, 2, 3), np.uint8)


def at(media: float) -> Picture:
    return Picture(PIXELS, media, 0.0)


def test_gives_the_newest_that_is_due() -> None:
    shelf = Shelf()
    for media in (1.0, 2.0, 3.0):
        shelf.add(at(media))
    assert shelf.newest_at(0.5) is None
    assert [shelf.newest_at(media).media for media in (1.0, 2.9, 10.0, 10.0)] == [1.0, 2.0, 3.0, 3.0]  # type: ignore[union-attr]


def test_what_is_older_than_the_newest_is_of_no_use() -> None:
    shelf = Shelf()
    for media in (2.0, 1.0, 2.0):
        shelf.add(at(media))
    picture = shelf.newest_at(5.0)
    assert picture is not None
    assert picture.media == 2.0
    assert shelf.newest_at(1.5) is None


def test_is_bounded_and_loses_the_oldest() -> None:
    shelf = Shelf(capacity=3)
    for media in range(10):
        shelf.add(at(float(media)))
    assert shelf.newest_at(6.9) is None
    assert shelf.newest_at(7.0) is not None


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_is_the_newest_of_all_at_or_before(added: list[float], asked: list[float]) -> None:
    shelf, kept = Shelf(capacity=1000), []
    for media in added:
        shelf.add(at(media))
        if not kept or media > kept[-1]:
            kept.append(media)
    for media in sorted(asked):
        picture = shelf.newest_at(media)
        due = [m for m in kept if m <= media]
        assert (picture.media if picture else None) == (due[-1] if due else None)
