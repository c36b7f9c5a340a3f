"""SoulX-FlashHead (arXiv 2602.07449), the Pro model: chunks of 33 frames that see each other in both directions, the
first ones given by the chunk before. Parameter names are those of the original code."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamfx.core.errors import UsageError
from streamfx.diffusion.rope import Rope3D
from streamfx.diffusion.schedules import Schedule, flow
from streamfx.models.avatar_wan.injection import FRAMES
from streamfx.models.avatar_wan.tokens import attended, patched, unpatched
from streamfx.models.causal_wan.dit import PATCH, CausalWan, Projections, WanSize, sinusoid
from streamfx.models.causal_wan.vae import VideoVae
from streamfx_kernels.modulate import modulated_norm

CHUNK = 33
"""Pictures that are drawn together: one, and four for each latent frame that follows."""

HISTORY = 2
"""Latent frames of the chunk before that a chunk begins with."""

_SIDE = 2
"""Rows of features to each side that belong to a picture."""

SEEN = 2 * _SIDE + 1
"""Rows of features that a chunk's first picture is drawn to: its own, and those beside it."""

SEEN_LATER = FRAMES + 2 * _SIDE
"""Rows of features that the four pictures of a latent frame are drawn to."""


class SoundTokens(nn.Module):
    """``AudioProjModel``: features of pictures to ``tokens`` for each latent frame. ``width``: of a row, all layers."""

    def __init__(self, width: int, inner: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.width, self._tokens = width, tokens
        self.proj1 = nn.Linear(SEEN * width, inner)
        self.proj1_vf = nn.Linear(SEEN_LATER * width, inner)
        self.proj2 = nn.Linear(inner, inner)
        self.proj3 = nn.Linear(inner, tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor) -> Tensor:
        """Rows of 1 + 4 n pictures and of the two before them, ``(3 + 4 n, layers, width)`` → ``(1 + n, tokens, dim)``.
        For rows that are not there yet the last one stands."""
        rows = features.to(self.proj1.weight.dtype).flatten(1)
        rows = torch.cat([rows, rows[-1:].expand(_SIDE, -1)])
        later = rows[1:].unfold(0, SEEN_LATER, FRAMES).mT.flatten(1)
        mixed = functional.relu(torch.cat([self.proj1(rows[:SEEN].flatten()[None]), self.proj1_vf(later)]))
        tokens = self.proj3(functional.relu(self.proj2(mixed))).unflatten(1, (self._tokens, -1))
        return cast(Tensor, self.norm(tokens))


class _Block(nn.Module):
    """As a block of Wan; but each latent frame asks its own tokens of sound, and nothing of a prompt."""

    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.eps = size.eps
        self.self_attn = Projections(size)
        self.norm3 = nn.LayerNorm(size.dim, eps=size.eps)
        self.cross_attn = Projections(size)
        self.ffn = nn.Sequential(nn.Linear(size.dim, size.hidden), nn.GELU("tanh"), nn.Linear(size.hidden, size.dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, size.dim) / size.dim**0.5)

    def forward(self, x: Tensor, time: Tensor, heard: Tensor, rope: Rope3D) -> Tensor:
        """``x``: ``(1, F, S, dim)``; ``time``: ``(1, 1, 6, dim)``; ``heard``: ``(F, T, dim)``."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (self.modulation + time)[:, :, :, None].unbind(2)
        mixed = self._mixed(modulated_norm(x, scale, shift, self.eps), rope)
        x = (x.float() + self.self_attn.out(mixed) * gate).type_as(x)
        query = self.cross_attn.queries(self.norm3(x))[0]
        found = attended(query, *self.cross_attn.keys_values(heard))
        x = x + self.cross_attn.out(found)[None]
        fed = self.ffn(modulated_norm(x, ff_scale, ff_shift, self.eps))
        return cast(Tensor, (x.float() + fed.float() * ff_gate).type_as(x))

    def _mixed(self, x: Tensor, rope: Rope3D) -> Tensor:
        """All tokens of a chunk with each other: ``(1, F, S, dim)`` → ``(1, F, S, H, D)``."""
        query, key, value = self.self_attn.turned(x, rope)
        places = torch.arange(x.shape[1], device=x.device)
        query, key = rope.time(query, places), rope.time(key, places)
        return attended(query.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2)).reshape(query.shape)


class FlashWan(CausalWan):
    """The whole transformer. ``sound``: layers and width of the features, of what is between them and the tokens, and
    how many tokens a latent frame has. It takes no prompt."""

    def __init__(self, size: WanSize, sound: tuple[int, int, int]) -> None:
        super().__init__(size)
        del self.text_embedding
        width, inner, tokens = sound
        # The reference comes with every latent, as more of its channels.
        self.patch_embedding = nn.Conv3d(2 * size.channels, size.dim, (1, PATCH, PATCH), (1, PATCH, PATCH))
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.layers))
        self.audio_proj = SoundTokens(width, inner, tokens, size.dim)

    def see(self, x: Tensor, timestep: Tensor, heard: Tensor, reference: Tensor, rope: Rope3D) -> Tensor:
        """``x``, ``reference``: ``(F, C, h, w)``, h and w even; ``timestep``: ``(1,)`` in [0, 1000]; ``heard``: of
        ``audio_proj``, for each frame. Returns the velocity, like ``x``."""
        tokens = patched(self.patch_embedding, torch.cat([x, reference], 1))
        time = self.time_embedding(sinusoid(timestep, self.size.time_dim).type_as(x))
        modulation = self.time_projection(time).reshape(1, 1, 6, self.size.dim).float()
        for block in self.blocks:
            tokens = block(tokens, modulation, heard, rope)
        return unpatched(self.head(tokens, time[None].float()), x)


def flash_schedule(steps: int = 4, shift: float = 5.0) -> Schedule:
    """The steps of SoulX-FlashHead: even, at a shift of 5."""
    return flow([1000 * (steps - n) / steps for n in range(steps)], shift)


class FlashHead:
    """Draws a head to sound. ``picture``: ``(3, H, W)`` in [-1, 1], of the person, H and W multiples of 16. ``vae``:
    steady, Wan's own: chunks are decoded by themselves, which a light one cannot. Raises ``UsageError`` for that."""

    fps = 25
    frames = CHUNK - (1 + FRAMES * (HISTORY - 1))
    hears = _SIDE + CHUNK

    def __init__(
        self, model: FlashWan, vae: VideoVae, picture: Tensor, *, schedule: Schedule | None = None, seed: int = 0
    ) -> None:
        if vae.lag:
            raise UsageError("SoulX-FlashHead takes no light autoencoder; choose vae full, or a place of it")
        self._model, self._vae, self._seed = model, vae, seed
        weight = model.patch_embedding.weight
        self._schedule = (schedule or flash_schedule()).to(weight.device, weight.dtype)
        self._reference = self._encoded(picture.expand(CHUNK, -1, -1, -1)).to(weight.device, weight.dtype)
        grid = self._reference.shape[-2] // PATCH, self._reference.shape[-1] // PATCH
        self._rope = Rope3D(model.size.head_dim, grid, len(self._reference), device=weight.device)
        self._history = self._reference[:1]
        self.reset()

    def takes(self, layers: int, dim: int) -> bool:
        """As ``stream.Draws``."""
        return layers * dim == self._model.audio_proj.width

    @torch.no_grad()
    def draw(self, features: Tensor) -> Tensor:
        """As ``stream.Draws``."""
        heard = self._model.audio_proj(features)
        tables, given = self._schedule, len(self._history)
        x = self._noise()
        for step in range(tables.steps):
            here, ahead = slice(step, step + 1), slice(step + 1, step + 2)
            x[:given] = self._history
            velocity = self._model.see(x, tables.timesteps[here], heard, self._reference, self._rope)
            x = tables.x0(x, velocity, here)
            if step < tables.steps - 1:
                x = tables.noised(x, self._noise(), ahead)
        x[:given] = self._history
        self._vae.reset()
        # A steady decoder shows the first latent's one frame as often as the others' four.
        shown = self._vae.decode(x)[FRAMES - 1 :]
        new = shown[-self.frames :]
        self._history = self._encoded(shown[self.frames :]).to(x)
        return new

    def reset(self) -> None:
        """As ``stream.Draws``."""
        self._draw = torch.Generator(self._reference.device).manual_seed(self._seed)
        self._history = self._reference[:1]

    def _noise(self) -> Tensor:
        like = self._reference
        return torch.randn(like.shape, generator=self._draw, device=like.device, dtype=like.dtype)

    def _encoded(self, pictures: Tensor) -> Tensor:
        """``(1 + 4 n, 3, H, W)`` → ``(1 + n, C, h, w)``, as a clip of its own."""
        self._vae.reset()
        # A steady encoder takes four for the first latent too, and of these the last.
        return self._vae.encode(torch.cat([pictures[:1].expand(FRAMES - 1, -1, -1, -1), pictures]))
