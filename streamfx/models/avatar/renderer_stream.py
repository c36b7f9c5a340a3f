"""A portrait that moves: one picture for each row of coefficients, for as long as there are any."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx.models.avatar.coefficients import COEFFICIENTS
from streamfx.models.avatar.renderer import GRID, Portrait, Renderer
from streamfx.models.tiny.dit import Cached

SINKS, WINDOW = 1, 2
LEVEL = 0.9
"""Share of noise in what is denoised, in a single step."""


class PortraitStream:
    """Draws a portrait in one pose after the other; cost and memory a picture are always the same.

    The past is the portrait, which stands right before the last ``WINDOW`` frames however long it goes on, and those
    frames. ``sinks`` 0 leaves the portrait out of the past, for comparison. Not for two threads at once.
    """

    def __init__(self, networks: Renderer, reference: Tensor, sinks: int = SINKS) -> None:
        """``reference``: as ``change`` takes it."""
        self._networks, self._sinks = networks, sinks
        weight = networks.dit.open.weight
        self._device, self._dtype = weight.device, weight.dtype
        self._caches: list[LayerCache] = []
        self._noise: tuple[int, Tensor] | None = None
        self.change(reference)

    @torch.inference_mode()
    def change(self, reference: Tensor) -> None:
        """Goes on with another portrait, at rest: ``(3, S, S)`` in [-1, 1], S a multiple of 16; and forgets the past.
        Raises ``ValueError`` for another shape."""
        if reference.ndim != 3 or reference.shape[0] != 3 or reference.shape[1] != reference.shape[2]:
            raise ValueError(f"a reference must have the shape (3, S, S), not {tuple(reference.shape)}")
        side = int(reference.shape[-1])
        if side < GRID or side % GRID:
            raise ValueError(f"the side of a reference must be a multiple of {GRID}, not {side}")
        self._portrait: Portrait = self._networks.see(reference[None].to(self._device))
        size, tokens = self._networks.size.dit, side // GRID
        shape = CacheSize(1, self._sinks, WINDOW, tokens**2, size.heads, size.head_dim)
        if not self._caches or self._caches[0].size != shape:
            self._caches = [LayerCache(shape, None, self._dtype, self._device) for _ in range(size.layers)]
            self._rope = Rope3D(size.head_dim, (tokens, tokens), SINKS + WINDOW + 1, device=self._device)
            self._noise = None
        self.reset()

    @torch.inference_mode()
    def reset(self) -> None:
        """Forgets all pictures but the portrait."""
        for cache in self._caches:
            cache.reset()
        if self._sinks:
            rest = self._networks.at_rest(self._portrait)
            self._networks.dit(rest.source, rest.source.new_zeros(1), rest, self._past())

    @torch.inference_mode()
    def draw(self, coefficients: npt.ArrayLike, seed: int = 0) -> npt.NDArray[np.uint8]:
        """The portrait in a pose ``(17,)``: ``(S, S, 3) uint8`` RGB. ``seed``: of the noise. ``ValueError`` for another
        shape and for what is no finite number."""
        row = np.asarray(coefficients, np.float32)
        if row.shape != (len(COEFFICIENTS),):
            raise ValueError(f"coefficients must have the shape ({len(COEFFICIENTS)},), not {row.shape}")
        if not np.isfinite(row).all():
            raise ValueError("coefficients must be finite numbers")
        posed = self._networks.posed(self._portrait, torch.from_numpy(row)[None].to(self._device))
        noisy = torch.lerp(posed.source, self._noise_of(seed), LEVEL)
        made = self._networks.dit(noisy, noisy.new_full((1,), LEVEL), posed, self._past())
        picture = self._networks.draw(self._portrait, posed, made).pixels[0]
        shown = picture.float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).movedim(0, -1)
        found: npt.NDArray[np.uint8] = shown.contiguous().cpu().numpy()
        return found

    def _past(self) -> list[Cached]:
        return [Cached(cache, (0,), self._rope) for cache in self._caches]

    def _noise_of(self, seed: int) -> Tensor:
        if self._noise is None or self._noise[0] != seed:
            drawn = torch.randn(self._portrait.latents.shape, generator=torch.Generator().manual_seed(seed))
            self._noise = seed, drawn.to(self._device, self._dtype)
        return self._noise[1]
