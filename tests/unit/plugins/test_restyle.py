"""The filter ``restyle`` with the weights that are in the package, as the worker drives it."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from streamfx.core.errors import FilterError, UsageError
from streamfx.filters.base import Block
from streamfx.filters.host import FilterHost, FilterSpec
from streamfx.filters.registry import load, parse_params, setup_fields, target_of
from streamfx.models.tiny.load import WEIGHTS, networks, style_encoder
from streamfx.models.tiny.styles import BY_NAME, STYLES, match
from streamfx_plugins.guided import grow
from streamfx_plugins.restyle import Restyle, RestyleParams, drawing_size

Picture = NDArray[np.uint8]
SIZE = (192, 128)


def host(size: tuple[int, int] = SIZE, **params: Any) -> FilterHost:
    return FilterHost(FilterSpec(target_of("restyle"), size, 30.0, 2, params))


def scene(shift: int = 0, size: tuple[int, int] = SIZE) -> Picture:
    """Sky, hills and a round thing, that moves to the right by ``shift``."""
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:] = np.linspace((90, 140, 230), (220, 190, 160), height)[:, None].astype(np.uint8)
    hills = height * (0.6 + 0.1 * np.sin((np.arange(width) - shift) / max(8, width / 12)))
    picture[np.arange(height)[:, None] > hills[None]] = (70, 120, 50)
    middle = int(width * 0.4) + shift, int(height * 0.45)
    cv2.circle(picture, middle, max(2, min(size) // 5), (200, 60, 40), -1, cv2.LINE_AA)
    return picture


def play(subject: FilterHost, count: int, size: tuple[int, int] = SIZE, first: int = 0, level: int = 0) -> list[Block]:
    numbers = range(first, first + count)
    return [subject.run(Block(video=scene(n, size)[None], pts=(n / 30,), quality=level), 1.0) for n in numbers]


def last(subject: FilterHost, count: int = 3, **more: Any) -> Picture:
    return play(subject, count, **more)[-1].frames[0]


def difference(a: Picture, b: Picture) -> float:
    """Mean, in levels of 255."""
    return float(np.abs(a.astype(np.int16) - b).mean())


@pytest.fixture(scope="module")
def in_all_styles() -> dict[str, Picture]:
    subject = host()
    out = {}
    for name in BY_NAME:
        subject.configure({"style": name})
        out[name] = last(subject, 2)
    return out


def test_every_style_is_one_of_its_own(in_all_styles: dict[str, Picture]) -> None:
    assert len(in_all_styles) >= 12
    for (one, a), (other, b) in combinations(in_all_styles.items(), 2):
        drawn = (np.minimum(a, b) < 240).any(axis=-1)  # not the paper that pencil and crayons leave as it is
        assert difference(a[drawn], b[drawn]) > 10, f"{one} looks like {other}"
    for name, picture in in_all_styles.items():
        assert difference(picture, scene(1)) > 5, f"{name} looks like the source"


def test_a_stream_is_the_same_again_for_a_seed() -> None:
    base = last(host())
    assert np.array_equal(last(host()), base)
    assert not np.array_equal(last(host(seed=5)), base)


def test_the_style_is_changed_live_without_a_broken_picture(in_all_styles: dict[str, Picture]) -> None:
    subject = host(style="mist")
    before = play(subject, 3)
    subject.configure({"style": "crimson"})
    after = play(subject, 3, first=3)
    assert [block.pts for block in before + after] == [(n / 30,) for n in range(6)]
    for block in after:
        assert difference(block.frames[0], in_all_styles["crimson"]) < difference(
            block.frames[0], in_all_styles["mist"]
        )
        assert block.frames[0].std() > 5


@pytest.mark.parametrize("level", range(Restyle.info.quality_levels))
def test_every_quality_level_gives_every_picture(level: int) -> None:
    out = play(host(steps=2), 4, level=level)
    moments = [moment for block in out for moment in block.pts]
    assert moments == [n / 30 for n in range(4 if level else 3)]
    assert all(block.frames.shape[1:] == (SIZE[1], SIZE[0], 3) for block in out)


def test_from_level_to_level_and_back() -> None:
    subject = host()
    moments = [play(subject, 1, first=n, level=level)[0].pts for n, level in enumerate([0, 1, 3, 3, 2, 0, 3])]
    assert moments == [(n / 30,) for n in range(7)]


@pytest.mark.parametrize("size", [(90, 160), (123, 77), (16, 16), (640, 17), (1280, 720)])
def test_any_size(size: tuple[int, int]) -> None:
    picture = last(host(size), 2, size=size)
    assert picture.shape == (size[1], size[0], 3)
    assert picture.max() > 20


@pytest.mark.parametrize("size", [(640, 1), (1, 1), (15, 400)])
def test_too_small_a_picture_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(FilterError, match=f"pictures of {size[0]}x{size[1]} are too small; at least 16 pixels"):
        host(size)


def test_strength_and_colours() -> None:
    subject, source = host(), scene(2)

    def drawn(**params: Any) -> Picture:
        subject.configure({"style": "crimson"} | params)
        return last(subject)

    base = drawn()
    none, half = (difference(drawn(strength=strength), source) for strength in (0.0, 0.5))
    assert none < difference(base, source) / 3
    assert none < half < difference(base, source)

    def chroma(picture: Picture) -> Picture:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)[..., 1:], np.uint8)

    kept = drawn(keep_colors=1)
    assert difference(chroma(kept), chroma(source)) < difference(chroma(base), chroma(source)) / 2


def test_two_styles_blend() -> None:
    subject = host()

    def drawn(**params: Any) -> Picture:
        subject.configure(params)
        return last(subject)

    first, second = drawn(style="mist"), drawn(style="crimson")
    between = drawn(style="mist", other="crimson", blend=0.5)
    assert difference(between, first) < difference(second, first)
    assert difference(between, second) < difference(second, first)
    assert np.array_equal(drawn(style="mist", other="crimson", blend=0), first)


def test_the_style_of_a_picture(tmp_path: Path, in_all_styles: dict[str, Picture]) -> None:
    files = []
    for name in ("starry-night", "pop-art"):
        files.append(tmp_path / f"{name}.png")
        cv2.imwrite(str(files[-1]), cv2.cvtColor(in_all_styles[name], cv2.COLOR_RGB2BGR))
    one, other = (last(host(style_image=str(file))) for file in files)
    assert difference(one, other) > 3
    assert difference(one, last(host())) > 3
    assert "style_image" in setup_fields(Restyle)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot be read: No such file"), (b"", "cannot be read|is not a picture"), (b"text", "is not a picture")],
)
def test_a_style_image_that_is_none(content: bytes | None, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FilterError, match=sentence):
        host(style_image=str(file))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("van gogh starry night", "starry-night"),
        ("pencil sketch", "pencil"),
        ("Ukiyo E", "ukiyo-e"),
        ("a japanese woodblock print", "ukiyo-e"),
        ("watercolour", "watercolor"),
        ("water lilies by monet", "impressionist"),
        ("Cartoon", "comic"),
        ("crayon drawing", "colored-pencil"),
        ("picaso", "cubist"),
        ("impresionist", "impressionist"),
        ("neon city at night", "nocturne"),
    ],
)
def test_a_few_words_find_a_style(words: str, name: str) -> None:
    assert match(words).name == name
    assert RestyleParams(style=words).style == name, "it says what it took"


@pytest.mark.parametrize("words", ["", "   ", "a painting", "xyzzy", "的"])
def test_words_that_say_nothing_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match=r"no style is known by .*; there are: ukiyo-e, "):
        match(words)
    with pytest.raises(ValidationError):
        RestyleParams(style=words)
    with pytest.raises(UsageError, match="style"):
        parse_params(load(target_of("restyle")), {"style": words})


def test_the_list_of_styles() -> None:
    assert [style.number for style in STYLES] == list(range(len(STYLES)))
    assert all(match(name).name == name for name in BY_NAME)
    assert RestyleParams.model_json_schema()["properties"]["style"]["examples"] == list(BY_NAME)


def test_weights_are_small_and_whole(tmp_path: Path) -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*.safetensors")) <= 25e6
    with pytest.raises(FilterError, match=r"autoencoder.safetensors is not in the package"):
        networks(folder=tmp_path)
    (tmp_path / "style_encoder.safetensors").write_bytes(b"\x10" + bytes(7) + b"not json at all.")
    with pytest.raises(FilterError, match="is not what this version"):
        style_encoder(tmp_path)
    (tmp_path / "autoencoder.safetensors").write_bytes((WEIGHTS / "dit.safetensors").read_bytes())
    with pytest.raises(FilterError, match="is not what this version"):
        networks(folder=tmp_path)


def test_the_size_it_is_drawn_at() -> None:
    assert drawing_size((1280, 720), 384) == (512, 288)
    assert drawing_size((320, 240), 384) == (320, 240)
    assert drawing_size((123, 77), 384) == (120, 80)
    assert drawing_size((20, 2000), 384)[0] == 16


def test_growing_takes_the_detail_of_the_source() -> None:
    draw = np.random.default_rng(0)
    fine = cv2.GaussianBlur(draw.normal(0, 1, (240, 320)).astype(np.float32), (0, 0), 1.0)
    source = np.repeat(np.clip(128 + 90 * fine / fine.std() / 2, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    wanted = np.clip(0.6 * source.astype(np.float32) + (60, 20, 0), 0, 255).astype(np.uint8)
    drawn = np.asarray(cv2.resize(wanted, (160, 120), interpolation=cv2.INTER_AREA), np.uint8)
    plain = np.asarray(cv2.resize(drawn, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8)
    assert difference(grow(drawn, source), wanted) < 0.5 * difference(plain, wanted)
    flat = np.full((120, 160, 3), 90, np.uint8)
    assert difference(grow(flat, source), np.full((240, 320, 3), 90, np.uint8)) < 0.5, "what is plain stays plain"
    assert grow(wanted, source) is wanted
