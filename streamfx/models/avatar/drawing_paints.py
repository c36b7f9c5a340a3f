"""A character's colours as they are painted: under its light, with the shades that go with them."""

from __future__ import annotations

from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing_canvas import WHITE, Colour, mix, ratio, rgb, times

_NIGHT: Colour = (198, 180, 204)
RIMS: dict[str, tuple[Colour, Colour]] = {
    # The light's side and the other one.
    "soft": ((26, 22, 14), (4, 5, 9)),
    "night": ((20, 120, 150), (170, 50, 100)),
}


class Paints:
    """Ready-made RGB colours. ``shade`` and ``flush`` are what skin is multiplied with."""

    def __init__(self, who: Character):
        night = who.style == "night"
        self.hard = who.style in ("flat", "ink")
        self.line = 0.0155 if who.style == "ink" else 0.0
        self.rim = RIMS.get(who.style)
        self._ambient: Colour = _NIGHT if night else WHITE

        self.skin = self._lit(who.skin)
        self.skin_dark = self._lit(who.skin_shade)
        self.shade = ratio(rgb(who.skin_shade), rgb(who.skin))
        self.flush = ratio(rgb(who.blush), rgb(who.skin))
        # As much as there is room for: the palest skins would burn out.
        room = [min(full, max(0, (252 - level) // 2 + 4)) for full, level in zip((32, 27, 20), self.skin, strict=True)]
        self.glow: Colour = (room[0], room[1], room[2])
        self.crease = mix(self.skin_dark, (52, 20, 22), 0.42)
        self.ink = mix((38, 26, 40), self.skin_dark, 0.08)

        self.lip = self._lit(who.lip)
        self.lip_upper = mix(self.lip, (70, 16, 26), 0.13)
        self.lip_line = mix(self.lip, (44, 8, 18), 0.56)
        self.lip_light = mix(self.lip, (255, 226, 216), 0.19)
        self.cavity = self._lit("#571a26")
        self.cavity_deep = self._lit("#3a0f1b")
        self.tongue = self._lit("#cf6670")
        self.tongue_light = self._lit("#e08388")
        self.tooth = self._lit("#fffaf2")
        self.tooth_dark = self._lit("#e3d6cf")

        self.white = self._lit("#fbf8f5")
        self.iris = self._lit(who.eye_colour)
        self.iris_dark = mix(self.iris, (24, 14, 18), 0.55)
        self.iris_light = mix(self.iris, (255, 232, 180), 0.38)
        self.pupil: Colour = (26, 18, 24)
        self.lash = mix((34, 22, 28), self._lit(who.brow_colour), 0.18)
        self.lid = mix(self.skin_dark, self._lit(who.lid_colour), 0.3) if who.lid_colour else None
        self.brow = mix(self._lit(who.brow_colour), (40, 24, 26), 0.22)

        self.hair = self._lit(who.hair_colour)
        self.hair_shade = ratio(mix(self.hair, (36, 18, 44), 0.42), self.hair)
        self.hair_dark = mix(self.hair, (32, 16, 38), 0.34)
        self.hair_back = mix(self.hair, (30, 16, 38), 0.46)
        self.beard = self._lit(who.beard_colour)
        self.wrap = self._lit(who.wrap_colour)
        self.metal = self._lit(who.metal)
        self.frame = self._lit(who.glasses_colour)
        self.cloth = self._lit(who.cloth, 0.5)
        self.accent = self._lit(who.accent, 0.5)
        self.cloth_shade: Colour = (186, 176, 204)
        self.above, self.below, self.motif = rgb(who.background_above), rgb(who.background_below), rgb(who.motif)

    def _lit(self, text: str, share: float = 1.0) -> Colour:
        return times(rgb(text), mix(WHITE, self._ambient, share))

    def dark(self, colour: Colour, share: float = 0.3) -> Colour:
        """A colour's own shade."""
        return mix(colour, (34, 22, 48), share)

    def light(self, colour: Colour, share: float = 0.25) -> Colour:
        """A colour in full light."""
        return mix(colour, (255, 244, 226), share)
