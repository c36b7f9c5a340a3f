"""Who is drawn: every choice of a character's design in one record that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from streamfx.models.avatar import character_palettes as palettes

Choice = TypeVar("Choice")

STYLES = ("soft", "flat", "ink", "night")
HAIR_STYLES = (
    "bald", "buzz", "crop", "quiff", "undercut", "pixie", "curly_crop", "afro", "bob", "wavy", "straight",
    "fringe", "curls", "bun", "ponytail", "braids", "locs", "receding", "hijab", "headwrap",
)  # fmt: skip
BEARDS = ("none", "stubble", "moustache", "goatee", "short", "full")
GLASSES = ("none", "round", "square", "browline", "cat")
EARRINGS = ("none", "stud", "hoop", "drop")
CLOTHES = ("crew", "stripes", "vneck", "turtleneck", "shirt", "suit", "hoodie", "blazer", "dungarees")
BACKDROPS = ("plain", "disc", "hills", "rings", "window")

_CHOICES = {"style": STYLES, "hair": HAIR_STYLES, "beard": BEARDS, "glasses": GLASSES, "earrings": EARRINGS,
            "clothes": CLOTHES, "backdrop": BACKDROPS}  # fmt: skip
_WEIGHTS_SOFT = {"bob": 3, "wavy": 3, "straight": 3, "fringe": 3, "curls": 3, "bun": 3, "ponytail": 3, "braids": 2.5,
                 "pixie": 2, "afro": 1.6, "hijab": 2.8, "headwrap": 1.8, "locs": 1.2, "undercut": 0.5, "buzz": 0.3,
                 "curly_crop": 0.6, "crop": 0.2}  # fmt: skip
_WEIGHTS_STRONG = {"crop": 3.2, "quiff": 2.8, "undercut": 2.4, "buzz": 1.8, "curly_crop": 2.6, "afro": 1.4, "bald": 1.6,
                   "locs": 1.3, "wavy": 0.7, "bun": 0.5, "receding": 0.9, "pixie": 0.3}  # fmt: skip
_COILED = ("afro", "locs", "curly_crop", "curls", "braids", "buzz", "bald", "headwrap", "hijab", "bun")


@dataclass(frozen=True)
class Character:
    """A face's design. Colours are ``#rrggbb``; shapes are factors around 1 unless said otherwise.

    ``dataclasses.asdict`` is all that JSON has to hold; ``Character(**loaded)`` is the same one again. ``ValueError``
    for a style, hair and so on that there is none of.
    """

    style: str
    """How it is drawn: shaded softly, ``flat``, with ``ink`` outlines, or at ``night`` between coloured lights."""
    light: float
    """Where the light comes from: -1 from the left, 1 from the right."""
    skin: str
    skin_shade: str
    blush: str
    lip: str
    head_size: float
    face_width: float
    face_length: float
    jaw: float
    chin: float
    cheek: float
    ears: float
    neck: float
    shoulders: float
    eye_size: float
    eye_open: float
    eye_tilt: float
    """-1 to 1: outer corners down to up."""
    eye_spacing: float
    eye_colour: str
    lashes: float
    """0 to 1."""
    lid_colour: str
    """Make-up on the upper lids; empty for none."""
    brow_thickness: float
    brow_arch: float
    brow_colour: str
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_upper: float
    lip_lower: float
    lip_bow: float
    """0 to 1: how deep the upper lip's dip is."""
    hair: str
    hair_colour: str
    hair_volume: float
    hair_side: float
    """-1 or 1: the side that it is parted on."""
    wrap_colour: str
    """Of a hijab, a headwrap, or what ties the hair."""
    beard: str
    beard_colour: str
    age: float
    """0 to 1: lines of the face."""
    freckles: float
    """0 to 1: none to many."""
    mole: bool
    glasses: str
    glasses_colour: str
    earrings: str
    metal: str
    clothes: str
    cloth: str
    accent: str
    backdrop: str
    background_above: str
    background_below: str
    motif: str

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    @classmethod
    def of(cls, seed: int) -> Character:
        """The character of a seed (at least 0): always the same one."""
        return _drawn(np.random.default_rng(seed))


def _pick(rng: np.random.Generator, options: Sequence[Choice], weights: Sequence[float] | None = None) -> Choice:
    shares = None if weights is None else np.asarray(weights) / np.sum(weights)
    return options[int(rng.choice(len(options), p=shares))]


def _around(rng: np.random.Generator, middle: float, spread: float) -> float:
    """A normal number, kept within two spreads, so that nobody is a caricature."""
    return round(float(middle + spread * np.clip(rng.normal(), -2, 2)), 3)


def _hair_colours(rng: np.random.Generator, skin: int, age: float) -> tuple[str, str]:
    """Of the hair and of the brows."""
    fair = max(0.0, 1 - skin / 6)
    pools = (palettes.HAIR_DARK, palettes.HAIR_BROWN, palettes.HAIR_LIGHT)
    natural = _pick(rng, _pick(rng, pools, (0.35 + 0.08 * skin, 0.9 * fair + 0.25, 0.9 * fair + 0.02)))
    chance = rng.random()
    if age > 0.62 and chance < 0.8:
        grey = _pick(rng, palettes.HAIR_GREY)
        return grey, _pick(rng, ("#6c6a70", "#8a888d"))
    brow = natural if natural not in palettes.HAIR_LIGHT[3:] else "#9a7443"
    if age < 0.45 and chance < 0.15:
        return _pick(rng, palettes.HAIR_DYED), _pick(rng, palettes.HAIR_DARK[2:])
    return natural, brow


def _hair_style(rng: np.random.Generator, softness: float, skin: int, age: float) -> str:
    soft = rng.random() < softness
    weights = dict(_WEIGHTS_SOFT if soft else _WEIGHTS_STRONG)
    for style in weights:
        if style in ("afro", "locs"):
            weights[style] *= 0.25 if skin < 6 else 1.7
        elif skin >= 9 and style not in _COILED:
            weights[style] *= 0.35
        if age > 0.6 and style in ("receding", "bald", "bun", "bob"):
            weights[style] *= 2.5
    return _pick(rng, tuple(weights), tuple(weights.values()))


def _drawn(rng: np.random.Generator) -> Character:
    skin_index = _pick(rng, range(len(palettes.SKINS)), (1.2,) * 5 + (1.0,) * 4 + (0.8,) * 5)
    skin = palettes.SKINS[skin_index]
    age = round(float(rng.beta(1.2, 2.0)), 3)
    # One number from angular to soft ties together what is often seen together; none of it is ever certain.
    softness = float(rng.beta(0.7, 0.7))
    style = _pick(rng, STYLES, (0.46, 0.22, 0.17, 0.15))
    theme = _pick(rng, palettes.NIGHTS if style == "night" else palettes.THEMES)
    hair_colour, brow_colour = _hair_colours(rng, skin_index, age)
    hair = _hair_style(rng, softness, skin_index, age)
    bearded = (
        rng.random() < 0.62 * (1 - softness)
        and softness < 0.6
        and hair not in ("hijab", "braids", "ponytail", "bob", "fringe")
    )
    beard = _pick(rng, BEARDS[1:], (1.2, 0.7, 0.8, 1.5, 1.0)) if bearded else "none"
    fair_eyes = max(0.03, 0.75 - 0.12 * skin_index)
    painted = softness > 0.55 and rng.random() < 0.5
    lip = _pick(rng, ("#c2384e", "#b5485f", "#a5354a", "#c85a54")) if painted and rng.random() < 0.6 else skin.lip
    ears_seen = hair not in ("hijab", "bob", "wavy", "straight", "fringe", "curls")
    wears = rng.random() < (0.6 if softness > 0.5 else 0.12) and ears_seen
    return Character(
        style=style,
        light=_pick(rng, (-1.0, 1.0)),
        skin=skin.base,
        skin_shade=skin.shade,
        blush=skin.blush,
        lip=lip,
        head_size=_around(rng, 1.0, 0.02),
        face_width=_around(rng, 0.985, 0.025),
        face_length=_around(rng, 1.0, 0.03),
        jaw=_around(rng, 1.03 - 0.08 * softness, 0.03),
        chin=_around(rng, 1.2 - 0.24 * softness, 0.07),
        cheek=_around(rng, 1.0, 0.015),
        ears=_around(rng, 1.0, 0.08),
        neck=_around(rng, 1.08 - 0.2 * softness, 0.03),
        shoulders=_around(rng, 1.06 - 0.16 * softness, 0.03),
        eye_size=_around(rng, 0.97 + 0.1 * softness, 0.045),
        eye_open=_around(rng, 0.95 + 0.12 * softness, 0.09),
        eye_tilt=_around(rng, 0.15, 0.3),
        eye_spacing=_around(rng, 1.0, 0.025),
        eye_colour=_pick(rng, palettes.EYES_LIGHT if rng.random() < fair_eyes else palettes.EYES_DARK),
        lashes=round(float(np.clip(0.15 + 0.75 * softness + 0.1 * rng.normal(), 0, 1)), 3),
        lid_colour=_pick(rng, ("#b06a7e", "#8d6f9e", "#a8735a", "#5f8791")) if painted else "",
        brow_thickness=_around(rng, 1.18 - 0.35 * softness, 0.12),
        brow_arch=_around(rng, 0.8 + 0.4 * softness, 0.2),
        brow_colour=brow_colour,
        nose_width=_around(rng, 1.06 - 0.12 * softness, 0.07),
        nose_length=_around(rng, 1.0, 0.05),
        mouth_width=_around(rng, 1.0, 0.045),
        lip_upper=_around(rng, 0.85 + 0.25 * softness + 0.012 * skin_index, 0.1),
        lip_lower=_around(rng, 0.9 + 0.2 * softness + 0.012 * skin_index, 0.1),
        lip_bow=round(float(rng.uniform(0.2, 1.0)), 3),
        hair=hair,
        hair_colour=hair_colour,
        hair_volume=_around(rng, 1.0, 0.12),
        hair_side=_pick(rng, (-1.0, 1.0)),
        wrap_colour=_pick(rng, (theme.cloth, theme.accent, "#d98a7a", "#587b8c", "#8f5d6f", "#d8b15f", "#4f7f6a")),
        beard=beard,
        beard_colour=brow_colour,
        age=age,
        freckles=round(float(rng.uniform(0.4, 1.0)), 3) if skin_index < 8 and rng.random() < 0.25 else 0.0,
        mole=bool(rng.random() < 0.12),
        glasses=_pick(rng, GLASSES, (0.68, 0.12, 0.09, 0.06, 0.05 + 0.08 * softness)),
        glasses_colour=_pick(
            rng, ("#2b2a33", "#8c3b47", "#2f5d73", *(("#6b3f2a",) if skin_index < 8 else ("#e9e2d6", "#d8b15f")))
        ),
        earrings=_pick(rng, EARRINGS[1:]) if wears else "none",
        metal=_pick(rng, ("#e8bf5a", "#d9dbe2", "#e3a58c")),
        clothes=_pick(rng, CLOTHES),
        cloth=theme.cloth,
        accent=theme.accent,
        backdrop=_pick(rng, BACKDROPS),
        background_above=theme.above,
        background_below=theme.below,
        motif=theme.motif,
    )
