"""A face in a pose: where its lips, lids, irises and brows are, as maps that a renderer is told.

Talking heads are often conditioned on drawn landmarks (E. Zakharov et al., arXiv 1905.08233); these follow from a pose
and from the ten numbers of a face's shape (``renderer_shape``). They say as well where a place of the posed face was at
rest, so that lips and lids can be moved. Weights belong with the numbers in this file.

Places are on the head, in half widths of a face from between the eyes, y down, ``(R, h, w)``; poses ``(R, 17, 1, 1)``,
shapes ``(R, 10, 1, 1)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from streamfx.models.avatar.coefficients import COEFFICIENTS
from streamfx.models.avatar.renderer_shape import named

AT = {name: n for n, name in enumerate(COEFFICIENTS)}
CHANNELS = 18
"""Of ``Sketch.maps``."""

_HALF, _HEIGHT = 0.355, 0.715
_EYE, _AWAY, _IRIS = 0.245, 0.43, 0.16
_NOSE, _CHIN, _FOREHEAD, _CHEEK = 0.48, 1.12, -0.8, 0.3
_BETWEEN_LIPS = 4
_EDGE = 0.012
_LASH, _BAG = 0.09, 0.05
"""How far above and below an open eye its lids move."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """``maps``: ``(R, 18, h, w)``, about [-1, 1]. ``x``, ``y``: ``(R, h, w)``, where on the face at rest places are;
    ``hidden``: ``(R, h, w)``, 1 where they are on none, so that there is nothing to copy."""

    maps: Tensor
    hidden: Tensor
    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True)
class _Lips:
    """Of a mouth, at each place's x: the four ``lines`` from top to bottom. Of the mouth, ``(R, 1, 1)``: ``half``,
    ``inner`` and ``outer``, half its widths; how far it is open, ``gap``; how open it looks, ``opening``; ``middle`` of
    the upper lip's edge; and the ``roof`` and the ``floor`` of what is seen between the lips."""

    lines: tuple[Tensor, Tensor, Tensor, Tensor]
    half: Tensor
    inner: Tensor
    outer: Tensor
    gap: Tensor
    opening: Tensor
    middle: Tensor
    roof: Tensor
    floor: Tensor


def ramp(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """0 up to ``low``, 1 from ``high`` on, smooth between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def fall(x: Tensor, y: Tensor, pose: Tensor) -> Tensor:
    """How far the jaw takes places down."""
    jaw, rounded, press = (pose[:, AT[name]] for name in ("jaw_open", "lips_round", "lips_press"))
    reach = ramp(y, 0.45, 1.1) * (1 - ramp(y, 1.15, 1.8)) * (1 - ramp(x.abs(), 0.8, 1.2))
    return 0.24 * jaw * (1 - 0.3 * rounded) * (1 - 0.75 * press) * reach


def sketch(x: Tensor, y: Tensor, pose: Tensor, shape: Tensor) -> Sketch:
    """Of places on the head as it stands."""
    chin = y
    for _ in range(3):
        chin = y - fall(x, chin, pose)
    rest = torch.zeros_like(pose)
    lips = _lips(x, pose, shape)
    mouth_x, mouth_y, mouth = _mouth_at_rest(x, y, lips, pose, rest, shape)
    eyes_x, eyes_y, eyes, eye_maps, lids = _eyes(x, y, pose, rest, shape)
    mouth_maps = _mouth_maps(x, y, lips, pose)
    inside = torch.lerp(chin, mouth_y, mouth)
    found = torch.where(y < _NOSE, torch.lerp(chin, eyes_y, eyes), inside)
    across = torch.where(y < _NOSE, torch.lerp(x, eyes_x, eyes), torch.lerp(x, mouth_x, mouth))
    return Sketch(
        torch.stack([*mouth_maps, *eye_maps], 1), torch.maximum(mouth_maps[_BETWEEN_LIPS], lids), across, found
    )


def _lips(x: Tensor, pose: Tensor, shape: Tensor) -> _Lips:
    who = named(shape)
    wide, rounded, press, tuck = (pose[:, AT[name]] for name in ("lips_wide", "lips_round", "lips_press", "lip_tuck"))
    glad, sad = pose[:, AT["smile"]].clamp_min(0), (-pose[:, AT["smile"]]).clamp_min(0)
    jaw = pose[:, AT["jaw_open"]].clamp_min(1e-6) ** 0.85
    gap = 0.46 * jaw * (1 - 0.14 * rounded) * (1 - 0.22 * wide)
    gap = gap + (0.145 - gap) * pose[:, AT["teeth"]] * torch.where(gap > 0.145, 0.92, 1.0)
    gap = gap + (0.1 - gap) * tuck * 0.94
    gap = gap + (0.17 * pose[:, AT["tongue_up"]] - gap).clamp_min(0) * (1 - 0.6 * rounded)
    gap = gap * (1 - press)
    opening = (gap / 0.2).clamp(0, 1)
    spread = (1 + 0.27 * wide + 0.17 * glad - 0.05 * sad) * (1 - 0.5 * rounded) * (1 - 0.1 * jaw * (1 - press))
    half = _HALF * who["mouth_width"] * spread * (1 - 0.06 * tuck)
    inner, outer = half * (1 - 0.2 * rounded), half + 0.012 + 0.035 * rounded
    thick = (1 - 0.48 * press) * (1 + 0.3 * rounded) * (1 - 0.14 * wide) * (1 - 0.1 * glad)
    upper = 0.088 * who["lip_upper"] * thick * (1 - 0.12 * jaw * (1 - press))
    lower = 0.112 * who["lip_lower"] * thick * (1 - 0.1 * jaw * (1 - press)) * (1 - 0.55 * tuck)
    middle = _HEIGHT * who["face_length"] - 0.035 * rounded * (1 - opening) - 0.05 * opening + 0.014 * press
    top = middle - 0.01 * glad
    corner = middle - 0.04 * (1 - rounded) + 0.4 * gap
    corner = corner - (0.105 * glad - 0.07 * sad) * (1 - 0.55 * rounded) + 0.014 * press
    full = 0.5 + 0.42 * (1 - rounded) * (1 - 0.9 * opening)
    t, wider = (x / inner).clamp(-1, 1), (x / outer).clamp(-1, 1)
    span = (1 - t.abs() ** 2.2).clamp_min(1e-6) ** full
    outer_span = (1 - wider.square()).clamp_min(1e-6) ** (0.92 - 0.42 * torch.maximum(rounded, 0.7 * opening))
    bead = 0.016 * (1 - rounded) * (1 - press) * (1 - 0.8 * opening)
    closed = corner + (top - corner) * span + bead * (-((t / 0.24) ** 2)).exp()
    under = closed + gap * span
    bow = 0.3 * who["lip_bow"] * (-((wider / 0.17) ** 2)).exp() * (1 - 0.75 * rounded)
    ceiling = corner + (top - upper - corner) * outer_span + upper * bow
    ground = corner + (top + gap + lower - corner) * outer_span
    # Lips have curves of their own, and never less than a rim around what is open.
    ceiling = torch.minimum(ceiling, closed - 0.3 * upper * outer_span)
    ground = torch.maximum(ground, under + 0.3 * lower * outer_span)
    edge = top + bead
    roof, floor = torch.minimum(corner, edge), torch.maximum(corner, edge + gap)
    return _Lips((ceiling, closed, under, ground), half, inner, outer, gap, opening, edge, roof, floor)


def _mouth_at_rest(
    x: Tensor, y: Tensor, lips: _Lips, pose: Tensor, rest: Tensor, shape: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where places of the mouth are at rest, and how much they are the mouth's."""
    plain = _lips(x[:, :1, :1] * 0, rest, shape)
    there = x * plain.outer / lips.outer
    plain = _lips(there, rest, shape)
    chin = _CHIN + fall(torch.zeros_like(x[:, :1, :1]), torch.full_like(x[:, :1, :1], _CHIN), pose)
    posed = [torch.full_like(y, _NOSE), *lips.lines, chin.expand_as(y)]
    still = [torch.full_like(y, _NOSE), *plain.lines, torch.full_like(y, _CHIN)]
    share = (1 - ramp(x.abs(), lips.outer, lips.outer + 0.3)) * (1 - ramp(y, chin - 0.12, chin))
    away = ramp(y, _NOSE, _NOSE + 0.12)
    return torch.lerp(x, there, away), _between(y, posed, still), share


def _between(y: Tensor, knots: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """Straight lines through ``values`` at ``knots``, which rise; as steep as 1 before and after."""
    found = values[0] + (y - knots[0]).clamp(max=0) + (y - knots[-1]).clamp(min=0)
    for low, high, start, end in zip(knots, knots[1:], values, values[1:], strict=False):
        found = found + (end - start) * ((y - low) / (high - low).clamp_min(1e-3)).clamp(0, 1)
    return found


def _mouth_maps(x: Tensor, y: Tensor, lips: _Lips, pose: Tensor) -> list[Tensor]:
    """The lips' lines, what is between them, teeth, and tongue."""
    rounded, wide, teeth, tuck, tip_up = (
        pose[:, AT[name]] for name in ("lips_round", "lips_wide", "teeth", "lip_tuck", "tongue_up")
    )
    near = (1 - ramp(x.abs(), lips.outer, lips.outer + 0.1)) * (1 - ramp((y - _HEIGHT - 0.1).abs(), 0.4, 0.5))
    _, upper, lower, _ = lips.lines
    inside = _over(y - upper) * _over(lower - y) * _over(lips.inner - x.abs())
    t = (x / lips.inner).clamp(-1, 1)
    glad = pose[:, AT["smile"]].clamp_min(0)
    down = torch.minimum(0.125 * (1 - 0.95 * rounded) + 0.02 * wide + 0.02 * glad, 0.5 * lips.gap) * (1 - 0.3 * tip_up)
    down = down + (0.45 * lips.gap - down) * teeth
    down = down + (1.02 * lips.gap - down) * tuck
    row = torch.maximum(lips.middle + (upper - lips.middle) * 0.5 + down * (1 - 0.16 * t.square()), upper)
    low_row = lower - 0.36 * lips.gap * ramp(teeth, 0.15, 0.9) * (1 - 0.3 * t.abs() ** 3)
    height = lips.floor - lips.roof + 1e-3
    ridge = lips.floor - 0.38 * height * lips.opening
    tongue = (x / (0.66 * lips.half)).square() + ((y - ridge - 0.4 * height) / (0.4 * height)).square()
    tip = torch.minimum(0.62 * lips.half, torch.full_like(lips.half, 0.19))
    reach = lips.floor + 0.05 + (lips.middle + 0.6 * down - lips.floor - 0.05) * tip_up
    dome = reach + 0.1 - 0.1 * (1 - (x / tip).square()).clamp_min(0).sqrt()
    return [
        *(near * ((y - line) / 0.06).tanh() for line in lips.lines),
        inside,
        inside * ((y - lips.roof) / height).clamp(-1, 1),
        inside * t,
        inside * _over(row - y),
        inside * _over(y - low_row) * ramp(teeth, 0.15, 0.3),
        inside * ((1 - tongue) / 0.2).tanh(),
        inside * _over(y - dome) * _over(tip - x.abs()) * ramp(tip_up, 0.0, 0.3),
    ]


def _eyes(
    x: Tensor, y: Tensor, pose: Tensor, rest: Tensor, shape: Tensor
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor]:
    """Where places around the eyes are at rest, how much that counts, the eyes' maps, and what was hidden."""
    who = named(shape)
    away, half = _AWAY * who["eye_spacing"], _EYE * who["eye_size"]
    out = x.abs() - away  # outwards from the middle of the nearer eye
    left = (x < 0).to(x.dtype)
    upper, lower, brow, blink = _lids(out, left, pose, shape)
    still_upper, still_lower, still_brow, _ = _lids(out, left, rest, shape)
    near = ramp(x.abs(), 0.08, 0.2) * (1 - ramp(x.abs(), 0.72, 0.95))
    forehead, cheek = torch.full_like(y, _FOREHEAD), torch.full_like(y, _CHEEK)
    top, bottom = still_upper - _LASH, still_lower + _BAG
    # Lids move within a band about the eye, so that what is worn before it does not; above it are brows.
    found = _between(y, [forehead, brow, top, cheek], [forehead, still_brow, top, cheek])
    band = _soft(y - top) * _soft(bottom - y) * _soft(half + 0.06 - out.abs())
    knots, values = [top, upper, lower, bottom], [top, still_upper, still_lower, bottom]
    moved = band * ramp((upper - still_upper).abs() + (lower - still_lower).abs(), 0.01, 0.05)
    found = torch.where(band > 0.5, _between(y, knots, values), found)
    # What a lid shows when it shuts was hidden; the skin below the eye is most like it, and no brow's or frame's.
    shuts = (band > 0.5) & (y < upper) & (upper - still_upper > 0.03)
    found = torch.where(shuts, still_lower + _BAG + 0.02 + 0.05 * (y - upper), found)
    shut = shuts.to(y.dtype)[:, None]
    rim = functional.max_pool2d(shut, 3, 1, 1) + functional.max_pool2d(1 - shut, 3, 1, 1) - 1
    # The ball turns behind the lids.
    right, down = 0.105 * pose[:, AT["gaze_x"]], 0.062 * pose[:, AT["gaze_y"]]
    open_ = _over(y - upper) * _over(lower - y) * _over(half - out.abs())
    across, found = x - right * open_, torch.lerp(found, y - down, open_)
    seen_out = (x - right).abs() - away
    seen_upper, seen_lower, _, _ = _lids(seen_out, left, rest, shape)
    seen = _over(y - down - seen_upper) * _over(seen_lower - y + down) * _over(half - seen_out.abs())
    turned = torch.where(x < 0, -right, right)
    iris = torch.sqrt((out - turned + 0.006).square() + (y + 0.032 - down).square() + 1e-6)
    around = near * (1 - ramp((y + 0.1).abs(), 0.4, 0.5))
    maps = [
        around * ((y - upper) / 0.05).tanh(),
        around * ((y - lower) / 0.05).tanh(),
        open_,
        open_ * ((iris - _IRIS * who["eye_size"]) / 0.05).tanh(),
        around * blink * (-(((y - upper) / 0.04) ** 2)).exp(),
        around * ((y - brow) / 0.06).tanh(),
        torch.lerp(moved, 1 - seen, open_),
    ]
    return across, found, near, maps, torch.maximum(rim[:, 0], (1 - seen) * open_)


def _lids(out: Tensor, left: Tensor, pose: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Heights of the upper and the lower lid and of the brow, and how far the nearer eye is shut."""
    who = named(shape)
    blink = torch.lerp(pose[:, AT["blink_right"]].expand_as(left), pose[:, AT["blink_left"]].expand_as(left), left)
    up, down = pose[:, AT["gaze_y"]].clamp_min(0), (-pose[:, AT["gaze_y"]]).clamp_min(0)
    t = (out / (_EYE * who["eye_size"])).clamp(-1, 1)
    tall = who["eye_size"] * who["eye_open"]
    rise = 0.172 * tall * (1 - 0.2 * up + 0.06 * down) * (1 + 0.1 * pose[:, AT["brow_up"]])
    sink = 0.098 * tall * (1 - 0.34 * pose[:, AT["smile"]].clamp_min(0))
    slope = -(0.055 * who["eye_tilt"] + 0.012) * t
    shut = sink * 0.72 * (1 - t.square())
    high = (1 - t.abs() ** 2.3).clamp_min(1e-6) ** 0.85 * (1 - 0.12 * t)
    upper = slope - rise * high * (1 - blink) + shut * blink
    lower = slope + sink * (1 - t.square()) * (1 + 0.18 * t) * (1 - blink) + shut * blink
    lift, frown = pose[:, AT["brow_up"]].clamp_min(0), (-pose[:, AT["brow_up"]]).clamp_min(0)
    bend = (1 - ((out - 0.05) / 0.3).square()).clamp(0, 1)
    brow = -0.31 - 0.1 * bend - (0.12 + 0.04 * bend) * lift + (0.06 - 0.12 * out).clamp(0.02, 0.1) * frown
    return upper, lower, brow, blink


def _over(x: Tensor) -> Tensor:
    """1 where x is above 0, with a soft edge."""
    return (x / _EDGE).sigmoid()


def _soft(x: Tensor) -> Tensor:
    """1 where x is above 0, with a softer edge."""
    return (x / (2 * _EDGE)).sigmoid()
