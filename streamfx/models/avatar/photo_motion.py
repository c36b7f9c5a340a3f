"""How far the parts of a photographed face move for one row of coefficients: amounts in millimetres and in shares."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

from streamfx.models.avatar.drawing_pose import Pose

YAW, PITCH, ROLL = radians(13), radians(10), radians(8)
"""What 1 of each is: less than the drawn heads turn, since a photograph has no other side to show."""


@dataclass(frozen=True)
class Motion:
    """Amounts by which the fields of ``photo_warp`` are taken."""

    gap: float
    """By how much the lips part."""
    shut: float
    """How far a mouth that was photographed open is closed, from 0 to 1."""
    chin: float
    """By how much the chin falls."""
    spread: float
    """By what share the mouth gets wider."""
    corner: float
    """By how much its corners rise."""
    upper: float
    lower: float
    """By what share the lips get thicker."""
    cheek: float
    brow: float
    """By how much they rise."""

    @classmethod
    def of(cls, pose: Pose) -> Motion:
        wide, rounded, press, tuck = pose.lips_wide, pose.lips_round, pose.lips_press, pose.lip_tuck
        glad, sad = max(pose.smile, 0.0), max(-pose.smile, 0.0)
        jaw = pose.jaw_open**0.9
        gap = 17.0 * jaw * (1 - 0.35 * rounded) * (1 - 0.15 * wide)
        fall = 0.8 * gap
        # An s holds the rows of teeth together; an f leaves just the upper teeth's edge; an l needs room for the tip.
        gap += (4.2 - gap) * 0.9 * pose.teeth
        gap += (2.6 - gap) * 0.94 * tuck
        gap += max(0.0, 4.0 * pose.tongue_up - gap) * (1 - 0.6 * rounded)
        fall *= (1 - 0.8 * pose.teeth) * (1 - 0.8 * tuck)
        shown = 1 - press
        return cls(
            gap=gap * shown,
            shut=1 - (1 - press) * (1 - 0.6 * rounded * (1 - jaw)) * (1 - 0.5 * tuck),
            chin=fall * (1 - 0.8 * press),
            spread=(1 + 0.13 * wide + 0.1 * glad - 0.04 * sad) * (1 - 0.36 * rounded) * (1 - 0.09 * jaw * shown) - 1,
            corner=(3.6 * glad - 3.2 * sad) * (1 - 0.6 * rounded),
            upper=0.3 * rounded - 0.45 * press - 0.12 * wide - 0.08 * glad,
            lower=0.3 * rounded - 0.45 * press - 0.12 * wide - 0.08 * glad - 0.55 * tuck,
            cheek=1.8 * glad,
            brow=4.0 * max(pose.brow_up, 0.0) - 2.6 * max(-pose.brow_up, 0.0),
        )
