"""How any head moves, before anything is learnt: an ellipsoid in a pose, as a warp of the portrait at rest.

What a renderer learns is only how a face differs from that (First Order Motion Model, arXiv 2003.00196, learns all of
the motion; LivePortrait, arXiv 2407.03168, all but the head's rotation). Weights belong with the numbers in this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from streamfx.models.avatar.renderer_shape import named
from streamfx.models.avatar.renderer_sketch import AT, ramp, sketch

_YAW, _PITCH, _ROLL = (math.radians(most) for most in (25, 20, 18))
_UNIT, _CENTRE = 0.455, -0.085
"""Half a face's width, and how high the eyes are, in a picture of [-1, 1]."""
_NECK, _PIVOT = 1.15, 0.25
_ROUNDS = 5
FINER = 4
"""How many times as many places a side there are for faces as for heads."""


@dataclass(frozen=True, slots=True)
class Motion:
    """For a picture in a pose, on h by w places: ``head`` ``(R, h, w, 2)``: the place on the head, x and y in half
    widths of a face from between the eyes, as the head is turned back and its face is not. On four times as many places
    a side: ``came`` ``(R, 4 h, 4 w, 2)``: where in the portrait a place came from, less the place itself, in units of
    [-1, 1]; ``sketch`` ``(R, 18, 4 h, 4 w)`` and ``hidden`` ``(R, 1, 4 h, 4 w)``: as ``Sketch.maps`` and
    ``Sketch.hidden``."""

    head: Tensor
    came: Tensor
    sketch: Tensor
    hidden: Tensor


def places(height: int, width: int, like: Tensor) -> Tensor:
    """The middles of a picture's cells, ``(h, w, 2)``, x and y in [-1, 1]."""
    y, x = ((2 * torch.arange(n, device=like.device, dtype=like.dtype) + 1) / n - 1 for n in (height, width))
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1)


def motion(coefficients: Tensor, shape: Tensor, side: int) -> Motion:
    """Of poses ``(R, 17)`` of faces with ``shape`` ``(R, 10)``, on ``side`` by ``side`` places, and on finer ones."""
    seen = places(side, side, coefficients)
    middle = seen.new_tensor([0.0, _CENTRE])
    pose, who = coefficients[:, :, None, None], shape[:, :, None, None]
    length, unit = named(who)["face_length"], _UNIT * named(who)["head_size"][..., None]
    wanted = (seen - middle) / unit
    # The way there is known and the way back is not; but all moves are small enough to feel for it.
    head = wanted
    for _ in range(_ROUNDS):
        head = head + (wanted - _posed(head, pose, length))
    turned = functional.interpolate((head - wanted).movedim(-1, 1), scale_factor=float(FINER), mode="bilinear")
    fine = (places(FINER * side, FINER * side, coefficients) - middle) / unit
    face = sketch(turned[:, 0] + fine[..., 0], turned[:, 1] + fine[..., 1], pose, who)
    return Motion(head, (torch.stack([face.x, face.y], -1) - fine) * unit, face.maps, face.hidden[:, None])


def _posed(at: Tensor, pose: Tensor, length: Tensor) -> Tensor:
    """Where places of the head at rest, ``(R, h, w, 2)``, are in the pose: turned as a ball, tilted about the neck,
    less so below the chin and not at all far outside of the head. ``length``: of the face, ``(R, 1, 1)``."""
    x, y = at.unbind(-1)
    yaw, pitch, roll = (most * pose[:, AT[name]] for name, most in (("yaw", _YAW), ("pitch", _PITCH), ("roll", _ROLL)))
    z = 0.85 * (1 - (x / 1.06).square() - (y / (1.5 * length) + 0.033).square()).clamp_min(1e-4).sqrt()
    front = (z / 0.6).clamp(0, 1)
    across = x * (1 - (1 - yaw.cos()) * front) + z * yaw.sin()
    depth = z * yaw.cos() - x * yaw.sin() * front
    down = _PIVOT + (y - _PIVOT) * (1 - (1 - pitch.cos()) * front) + depth * pitch.sin()
    size = 1 + 0.05 * (depth - z)
    across, down = across * size, _PIVOT + (down - _PIVOT) * size
    turned = (
        across * roll.cos() - (down - _NECK) * roll.sin(),
        across * roll.sin() + (down - _NECK) * roll.cos() + _NECK,
    )
    follows = (1 - ramp((x.square() + (y / 1.25).square()).sqrt(), 1.3, 1.9)) * (1 - ramp(y, 1.0, 1.7))
    return torch.stack([x + (turned[0] - x) * follows, y + (turned[1] - y) * follows], -1)
