"""Filters one after the other, as one."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field

from streamfx.core.errors import FilterError, UsageError
from streamfx.filters.base import Block, Context, Filter, FilterInfo, Params
from streamfx.filters.chain import Chain, chained
from streamfx.filters.host import FilterHost, FilterSpec
from streamfx.filters.registry import load, parse_changes, parse_params, setup_fields, target_of
from tests.unit.filters.sample_filters import Late, Tricky

HERE = "tests.unit.filters.sample_filters"
SIZE = 16, 8


class ToneParams(Params):
    level: int = Field(0, ge=0, le=255, title="Level", description="of grey")
    file: str = Field("", description="of tones", json_schema_extra={"setup": True})


class Tone(Filter[ToneParams]):
    """Says with its pixels how much it heard, at which quality."""

    name = "tone"
    info = FilterInfo(takes="audio", lookahead=0.1, quality_levels=3, needs=("numpy",), install="pip install numpy")

    def process(self, block: Block, params: ToneParams) -> Block:
        heard = 0 if block.audio is None else block.audio.shape[1]
        pixel = params.level, heard, 100 + block.quality
        return block.with_video(np.tile(np.array(pixel, np.uint8), (*block.frames.shape[:3], 1)))


class Halver(Filter[Params]):
    """Works at half the size, and can be made to work at a quarter."""

    name = "halver"
    info = FilterInfo(quality_levels=2, min_scale=0.25, blocks=(1, 4), block=4)
    seen: ClassVar[list[tuple[int, ...]]] = []

    def setup(self, context: Context, params: Params) -> None:
        self.seen.clear()

    def process(self, block: Block, params: Params) -> Block:
        self.seen.append(block.frames.shape[:3])
        return block.with_video(block.frames[:, ::2, ::2] + np.uint8(1))


def target(*names: str) -> str:
    return "+".join(name if ":" in name else f"{HERE}:{name}" for name in names)


OWN = f"{__name__}:"


def host(*names: str, **params: object) -> FilterHost:
    return FilterHost(FilterSpec(target(*names), SIZE, 25.0, 1, params, sound=True))


def block(first: int, count: int, value: int = 10, **more: object) -> Block:
    frames = np.full((count, SIZE[1], SIZE[0], 3), value, np.uint8)
    return dataclasses.replace(Block(frames, pts=tuple(float(first + n) for n in range(count))), **more)  # type: ignore[arg-type]


def test_each_works_on_what_the_one_before_made() -> None:
    both = host("Tricky", "Tricky", **{"tricky.add": 5, "tricky-2.add": 7})
    assert (both.run(block(0, 4), 1.0).frames[:, 1:] == 22).all()
    both.configure({"tricky.add": 1, "tricky-2.add": 2})
    assert (both.run(block(4, 4), 1.0).frames[:, 1:] == 13).all()
    both.reset()
    assert both.run(block(8, 4), 1.0).frames[0, 0, 0, 0] == 1, "the reset reached the second one"
    both.close()


def test_the_first_may_be_driven_by_sound() -> None:
    chain = host(OWN + "Tone", "Tricky", **{"tone.level": 50})
    heard = block(0, 4, audio=np.zeros((2, 33), np.float32), quality=2)
    assert tuple(chain.run(heard, 1.0).frames[0, 1, 0]) == (51, 34, 103)
    with pytest.raises(UsageError, match="'tone' is driven by sound and sees no picture: it can only be the first"):
        load(target("Tricky", OWN + "Tone"))


def test_one_that_is_late_in_front_of_one_that_wants_four_at_once() -> None:
    kind = load(target("Late", "Tricky"))
    assert (kind.info.block, kind.info.blocks) == (4, ())
    chain = host("Late", "Tricky")
    given: list[float] = []
    for first in range(0, 40, 4):
        out = chain.run(block(first, 4, value=first), 1.0)
        assert len(out.pts) <= 4
        for pts, frame in zip(out.pts, out.frames, strict=True):
            assert frame[1, 0, 0] == 4 * (pts // 4) + 1, "a picture stays with its moment"
        given += out.pts
    assert given == [float(n) for n in range(len(given))]
    assert len(given) >= 28, "it does not fall behind for ever"
    chain.reset()
    assert chain.run(block(100, 4), 1.0).pts in {(), (100.0,)}, "what waited is forgotten"


def test_sizes_and_quality_of_each() -> None:
    kind = load(target(OWN + "Halver", OWN + "Halver"))
    assert (kind.info.blocks, kind.info.quality_levels, kind.info.min_scale) == ((1, 4), 2, 0.25)
    chain = host(OWN + "Halver", OWN + "Halver")
    out = chain.run(block(0, 4), 0.5)
    assert out.frames.shape == (4, 8, 16, 3)
    assert (out.frames == 12).all()
    assert Halver.seen == [(4, 4, 8), (4, 4, 8)], "each gets what the governor asks for"
    assert len(chain.run(block(4, 1), 1.0).pts) == 1


def test_what_is_known_of_a_chain() -> None:
    kind = load(target(OWN + "Tone", OWN + "Halver"))
    assert issubclass(kind, Chain)
    assert kind is load(target(OWN + "Tone", OWN + "Halver"))
    assert kind.name == "tone+halver"
    info = kind.info
    assert (info.takes, info.lookahead, info.block, info.blocks) == ("audio", 0.1, 4, (1, 4))
    assert (info.quality_levels, info.min_scale, info.needs) == (3, 0.5, ("numpy",))
    schema = kind.params_type.model_json_schema()["properties"]
    level = {"title": "tone: level", "maximum": 255, "default": 0, "description": "of grey"}
    assert level.items() <= schema["tone.level"].items()
    assert setup_fields(kind) == {"tone.file"}
    params = parse_params(kind, {"tone.level": "7"})
    with pytest.raises(UsageError, match=r"reads tone\.file only when it starts"):
        parse_changes(kind, {"tone.file": "x"}, params)
    with pytest.raises(UsageError, match=r"no parameter 'tone.levle'; did you mean 'tone.level'\?"):
        parse_params(kind, {"tone.levle": 1})
    with pytest.raises(UsageError, match=r"tone\.level = 300 is not possible"):
        parse_params(kind, {"tone.level": 300})


def test_what_does_not_go_together() -> None:
    with pytest.raises(UsageError, match="a chain of 5 filters; 4 are the most"):
        chained((Tricky,) * 5)
    with pytest.raises(UsageError, match="unknown filter 'tonn'"):
        target_of("toon+tonn")
    assert target_of("toon + pixelate").count(":") == 2

    class Seventeen(Late):
        name = "seventeen"
        info = FilterInfo(block=17)

    with pytest.raises(UsageError, match="do not go together: late 2, seventeen 17 frames"):
        chained((Late, Seventeen))


def test_errors_name_the_filter_that_failed() -> None:
    with pytest.raises(FilterError, match="filter 'untrained' cannot be set up: RuntimeError: weights are missing"):
        host("Tricky", "Untrained")
    chain = host("Tricky", "Tricky", **{"tricky-2.trick": "raise"})
    with pytest.raises(FilterError, match=r"^filter 'tricky' failed: ValueError: no such luck"):
        chain.run(block(0, 4), 1.0)
    told = host("Tricky", "Tricky", **{"tricky.trick": "tell"})
    told.run(block(0, 4), 1.0)
    assert len(told.notes()) == 2
