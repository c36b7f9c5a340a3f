"""A filter of one's own: darker corners and a warm tint, as an old lens would have it."""

import numpy as np
from pydantic import Field

from streamfx.filters import Block, Context, Filter, FilterInfo, Params


class VignetteParams(Params):
    """Bounds and descriptions become the command line's checks and the web page's controls."""

    strength: float = Field(0.6, ge=0, le=1, title="Strength", description="how dark the corners get")
    warmth: float = Field(0.3, ge=0, le=1, title="Warmth", description="how far the light leans to amber")


class Vignette(Filter[VignetteParams]):
    name = "vignette"
    info = FilterInfo(summary="Darker corners and a warm tint, as an old lens would have it.")

    def setup(self, context: Context, params: VignetteParams) -> None:
        """Loads what is needed; here, nothing but an empty place for the light map."""
        self._light = np.zeros((0, 0, 3), np.float32)
        self._made_for: object = None

    def process(self, block: Block, params: VignetteParams) -> Block:
        """Frames are ``(F, H, W, 3) uint8`` RGB. Under pressure they come smaller, so look at their shape."""
        wanted = (block.frames.shape[1:3], params)
        if self._made_for != wanted:
            self._light, self._made_for = self._light_map(*wanted), wanted
        return block.with_video((block.frames * self._light).astype(np.uint8))

    @staticmethod
    def _light_map(size: tuple[int, int], params: VignetteParams) -> np.ndarray:
        y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in size)
        distance = np.hypot(x[None, :], y[:, None]) / np.sqrt(2)
        light = 1 - params.strength * np.clip(distance, 0, 1) ** 2.5
        tint = np.array([1.0, 1 - 0.08 * params.warmth, 1 - 0.25 * params.warmth], np.float32)
        return light[..., None] * tint
