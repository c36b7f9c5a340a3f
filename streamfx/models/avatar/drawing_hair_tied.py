"""Hair that is tied up, and hair under cloth."""

from __future__ import annotations

import numpy as np

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import Points, curve
from streamfx.models.avatar.drawing_hair_shapes import (
    BACK,
    OUTER,
    Maker,
    Style,
    arc,
    at,
    closed,
    locks,
    mirrored,
    plait,
    sweep,
)


def _pulled(v: float) -> Points:
    """Hair combed back tightly."""
    line = at(
        [
            (0.94, 0.12),
            (0.9, -0.16),
            (0.82, -0.44),
            (0.56, -0.66),
            (0.2, -0.76),
            (0, -0.78),
            (-0.2, -0.76),
            (-0.56, -0.66),
            (-0.82, -0.44),
            (-0.9, -0.16),
            (-0.94, 0.12),
        ]
    )
    return closed(arc(-103, 103, 0.03, 0.12 * v), line)


def _pulled_strands() -> list[Points]:
    line = at([(0.86, -0.3), (0.62, -0.62), (0.2, -0.76), (-0.2, -0.76), (-0.62, -0.62), (-0.86, -0.3)])
    return sweep(curve(line), (0.0, -1.2), 5, 0.95)


def bun(who: Character) -> Style:
    """A knot on top, and a loose strand at each temple."""
    v = who.hair_volume
    turn = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    knot = np.column_stack([0.38 * v * np.cos(turn), -1.4 + 0.33 * v * np.sin(turn), np.full(18, -0.2)])
    style = Style(back=[curve(knot, closed=True)], front=[_pulled(v)], strands=_pulled_strands())
    style.back_strands = [
        curve(at([(-0.26 * v, -1.52), (0.0, -1.66), (0.26 * v, -1.5)], -0.2)),
        curve(at([(-0.3 * v, -1.34), (-0.02, -1.5), (0.3 * v, -1.32)], -0.2)),
    ]
    style.ties = [
        closed(
            at([(-0.24, -1.2), (0.0, -1.25), (0.24, -1.2)], -0.1),
            at([(0.24, -1.12), (0.0, -1.17), (-0.24, -1.12)], -0.1),
        )
    ]
    wisp = locks([(0.86, -0.42, 0.4), (0.97, -0.06, 0.3), (0.93, 0.4, 0.25)], 0.1, 0.1)
    style.front += [wisp, *mirrored([wisp])]
    return style


def ponytail(who: Character) -> Style:
    """High at the back, and it falls over one shoulder's side."""
    v = who.hair_volume
    tail = closed(
        at([(0.3, -1.22), (0.72, -1.5), (1.2, -1.24), (1.42, -0.6), (1.4, 0.2), (1.52, 0.9), (1.3, 1.5)], BACK),
        at([(1.3, 1.5), (1.1, 1.1), (0.98, 0.4), (0.9, -0.4), (0.5, -0.9), (0.3, -1.22)], BACK),
    )
    style = Style(back=[tail], front=[_pulled(v)], strands=_pulled_strands())
    style.back_strands = [
        curve(at([(0.66, -1.3), (1.12, -0.9), (1.24, -0.1), (1.3, 0.7), (1.28, 1.2)], BACK)),
        curve(at([(0.9, -1.34), (1.28, -0.8), (1.34, 0.0)], BACK)),
    ]
    style.ties = [
        closed(
            at([(0.34, -1.12), (0.5, -1.3), (0.6, -1.36)], -0.2), at([(0.7, -1.26), (0.6, -1.16), (0.46, -1.02)], -0.2)
        )
    ]
    sweep_line = closed(
        at([(-0.3, -0.98), (0.2, -0.92), (0.7, -0.7), (0.96, -0.2)], None),
        at([(0.96, -0.2), (0.8, -0.34), (0.5, -0.5), (0.1, -0.62), (-0.16, -0.76), (-0.3, -0.98)], None),
    )
    style.front.append(sweep_line)
    return style


def braids(who: Character) -> Style:
    """Two plaits over the shoulders."""
    v = who.hair_volume
    half = closed(
        np.vstack([arc(0, 98, 0.07 * v, 0.14 * v, 9), at([(1.1, 0.4)], 0.14)]),
        np.vstack(
            [
                at([(1.1, 0.4), (1.06, 0.62), (0.94, 0.5), (0.93, 0.2)], 0.14),
                at([(0.88, -0.14), (0.74, -0.44), (0.44, -0.68), (0.0, -0.86)]),
            ]
        ),
    )
    leaves, lines = plait([(1.0, 0.5, 0.1), (1.05, 1.0, 0.15), (0.98, 1.5, 0.2), (0.95, 2.05, 0.2)], 0.44, 7)
    tip = locks([(0.95, 1.98, 0.2), (0.98, 2.25, 0.2), (0.94, 2.5, 0.2)], 0.26, 0.1)
    style = Style(front=[half, *mirrored([half]), tip, *mirrored([tip]), *leaves, *mirrored(leaves)])
    line = curve(at([(0.05, -1.0), (0.5, -0.84), (0.9, -0.36), (0.99, 0.2)]))
    style.strands = [*lines, *mirrored(lines), line, *mirrored([line])]
    tie = closed(
        at([(0.83, 2.0), (0.95, 1.97), (1.07, 2.0)], 0.22), at([(1.06, 2.12), (0.95, 2.15), (0.84, 2.12)], 0.22)
    )
    style.ties = [tie, *mirrored([tie])]
    return style


def hijab(who: Character) -> Style:
    """A scarf that leaves the face free and falls over the chest."""
    style = Style(shadow=True)
    style.wraps_back = [
        closed(
            arc(-100, 100, 0.17, 0.2, z=BACK),
            at(
                [
                    (1.16, 0.3),
                    (1.1, 0.85),
                    (1.14, 1.2),
                    (1.34, 1.62),
                    (1.62, 2.1),
                    (1.8, 3.0),
                    (-1.8, 3.0),
                    (-1.62, 2.1),
                    (-1.34, 1.62),
                    (-1.14, 1.2),
                    (-1.1, 0.85),
                    (-1.16, 0.3),
                ],
                -0.1,
            ),
        )
    ]
    band = closed(
        np.vstack([at([(-0.98, 1.0)], 0.0), arc(-106, 106, 0.15, 0.18, 17), at([(0.98, 1.0)], 0.0)]),
        at(
            [
                (0.98, 1.0),
                (0.8, 0.82),
                (0.88, 0.4),
                (0.88, 0.0),
                (0.82, -0.36),
                (0.6, -0.62),
                (0.3, -0.73),
                (0, -0.76),
                (-0.3, -0.73),
                (-0.6, -0.62),
                (-0.82, -0.36),
                (-0.88, 0.0),
                (-0.88, 0.4),
                (-0.8, 0.82),
                (-0.98, 1.0),
            ],
            None,
        ),
    )
    style.wraps = [band]
    style.back_folds = [
        curve(at([(-0.86, 1.1), (-0.4, 1.42), (0.2, 1.5), (0.86, 1.3)], 0.0)),
        curve(at([(-0.98, 1.3), (-0.5, 1.72), (0.2, 1.84), (1.1, 1.56)], 0.0)),
        curve(at([(0.5, 1.5), (0.1, 1.9), (-0.2, 2.5)], 0.0)),
        curve(at([(-0.5, 1.24), (0.0, 1.34), (0.5, 1.28)], 0.0)),
    ]
    style.folds = [
        curve(at([(-0.2, -1.1), (0.5, -0.98), (0.92, -0.4), (0.98, 0.3)])),
        curve(at([(0.3, -0.78), (0.74, -0.54), (0.92, -0.06), (0.92, 0.5)])),
        curve(at([(-0.5, -1.02), (-0.92, -0.5), (-1.0, 0.2), (-0.94, 0.7)])),
    ]
    return style


def headwrap(who: Character) -> Style:
    """Cloth wound around the head and knotted in front."""
    v = who.hair_volume
    style = Style()
    tower = closed(
        at(
            [
                (-0.98, -0.4),
                (-1.14, -0.9),
                (-0.9, -1.42 * v),
                (-0.3, -1.66 * v),
                (0.4, -1.64 * v),
                (0.94, -1.36 * v),
                (1.14, -0.86),
                (0.98, -0.4),
            ],
            OUTER,
        ),
        at([(0.98, -0.4), (0.82, -0.6), (0.4, -0.72), (0.0, -0.75), (-0.4, -0.72), (-0.82, -0.6), (-0.98, -0.4)]),
    )
    style.wraps = [tower]
    knot = closed(at([(-0.28, -0.98), (0.0, -1.22), (0.3, -1.0), (0.22, -0.78), (-0.04, -0.72), (-0.26, -0.8)], 0.75))
    style.wraps.append(knot)
    style.folds = [
        curve(at([(-0.98, -0.6), (-0.6, -0.92), (-0.26, -0.92)], 0.4)),
        curve(at([(-1.0, -0.86), (-0.6, -1.16), (-0.2, -1.06)], 0.4)),
        curve(at([(0.98, -0.56), (0.6, -0.9), (0.26, -0.9)], 0.4)),
        curve(at([(1.02, -0.84), (0.62, -1.18), (0.2, -1.06)], 0.4)),
        curve(at([(-0.7, -1.36), (-0.1, -1.44), (0.6, -1.34)], 0.2)),
        curve(at([(-0.1, -1.04), (0.02, -0.94), (0.04, -0.8)], 0.8)),
    ]
    return style


STYLES: dict[str, Maker] = {"bun": bun, "ponytail": ponytail, "braids": braids, "hijab": hijab, "headwrap": headwrap}
