"""Wan2.2-S2V (arXiv 2508.18621), causal: the transformer of ``causal_wan`` with sound, a reference and motion frames.

Parameter names are those of the original code, which Live Avatar's LoRA (arXiv 2512.04677) is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from streamfx.models.avatar_wan.anchor import MOTION, Anchor, FramePacker, Placed, Still, reference_places, turns_of
from streamfx.models.avatar_wan.injection import AudioEncoder, AudioInjector, Heard, SoundSize
from streamfx.models.avatar_wan.tokens import patched, unpatched
from streamfx.models.causal_wan.dit import PATCH, Attention, CausalWan, Prompt, WanSize, sinusoid

_NOISY, _REFERENCE, _MOTION = range(3)


class SpeakingWan(CausalWan):
    """The whole transformer, for one stream at a time."""

    def __init__(self, size: WanSize, sound: SoundSize) -> None:
        super().__init__(size)
        self.sound = sound
        self.cond_encoder = nn.Conv3d(size.channels, size.dim, (1, PATCH, PATCH), (1, PATCH, PATCH))
        self.casual_audio_encoder = AudioEncoder(sound, size.dim)
        self.audio_injector = AudioInjector(size, sound.after)
        self.trainable_cond_mask = nn.Embedding(3, size.dim)
        self.frame_packer = FramePacker(size.channels, size.dim)

    def listen(self, features: Tensor, frames: int) -> Heard:
        """Of ``frames`` latent frames: ``(LEAD + 4 frames, layers, dim)`` features, as ``AudioContext`` gives them."""
        heard = cast(Heard, self.casual_audio_encoder(features))
        dtype = self.patch_embedding.weight.dtype
        return Heard(heard.tokens[-frames:].to(dtype), heard.whole[-frames:].to(dtype))

    def anchor(self, reference: Tensor, motion: Tensor, prompt: Prompt) -> Anchor:
        """``reference``: ``(C, h, w)``, a latent of a single picture. ``motion``: ``(MOTION, C, h, w)``, of what was
        before the first block."""
        if len(motion) != MOTION:
            raise ValueError(f"an anchor takes {MOTION} latent frames of motion, not {len(motion)}")
        picture = patched(self.patch_embedding, reference[None])
        grid = reference.shape[-2] // PATCH, reference.shape[-1] // PATCH
        parts = [Placed(picture[0, 0] + self.trainable_cond_mask.weight[_REFERENCE], reference_places(grid))]
        parts += [
            Placed(packed.tokens + self.trainable_cond_mask.weight[_MOTION], packed.places)
            for packed in self.frame_packer(motion)
        ]
        places = torch.cat([part.places.to(reference.device) for part in parts])
        still = [Still(turns_of(places, self.size.head_dim)) for _ in self.blocks]
        tokens = torch.cat([part.tokens for part in parts])[None, None]
        _, modulation = self._times(torch.zeros(1, device=reference.device), tokens)
        for block, asked, see in zip(self.blocks, prompt.layers, still, strict=True):
            tokens = block(tokens, modulation, asked, see)
        return Anchor(tuple(cast(tuple[Tensor, Tensor], see.found) for see in still))

    def speak(
        self, x: Tensor, timestep: Tensor, prompt: Prompt, heard: Heard, attention: Sequence[Attention]
    ) -> Tensor:
        """``x``: ``(F, C, h, w)``, a block, h and w even; ``timestep``: ``(1,)`` in [0, 1000]; ``heard``: of its
        frames; ``attention``: one a layer. Returns the velocity, like ``x``."""
        # Wan2.2-S2V may be shown poses besides. What their encoder makes of none is its bias.
        bias = cast(Tensor, self.cond_encoder.bias) + self.trainable_cond_mask.weight[_NOISY]
        tokens = patched(self.patch_embedding, x) + bias
        time, modulation = self._times(timestep, tokens)
        for layer, (block, asked, see) in enumerate(zip(self.blocks, prompt.layers, attention, strict=True)):
            tokens = self.audio_injector(layer, block(tokens, modulation, asked, see), heard)
        return unpatched(self.head(tokens, time), x)

    def _times(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """For the head and for the blocks: ``(1, 1, dim)`` and ``(1, 1, 6, dim)`` float32."""
        time = self.time_embedding(sinusoid(timestep, self.size.time_dim).type_as(like))
        return time[None].float(), self.time_projection(time).reshape(1, 1, 6, self.size.dim).float()
