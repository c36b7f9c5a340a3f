"""Large avatars with tiny random weights, and what they take."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import Wav2Vec2Config, Wav2Vec2Model

from streamfx.models.avatar_wan.flash_head import FlashWan
from streamfx.models.avatar_wan.injection import SoundSize
from streamfx.models.avatar_wan.speaker import SpeakingWan
from streamfx.models.causal_wan.dit import TEXT_TOKENS, TINY, CausalWan, Prompt, WanSize

tqdm.monitor_interval = 0  # no thread that watches progress bars

SOUND = SoundSize(layers=3, dim=16, tokens=2, after=(0, 1))
"""Of ``hearing``, all of whose hidden states are taken."""


def hearing(seed: int = 0) -> Wav2Vec2Model:
    torch.manual_seed(seed)
    config = Wav2Vec2Config(
        hidden_size=SOUND.dim,
        num_hidden_layers=SOUND.layers - 1,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return Wav2Vec2Model(config).eval()


def hearing_folder(folder: Path) -> Path:
    hearing().save_pretrained(folder)
    return folder


def shaken(model: nn.Module, by: float = 0.05) -> None:
    """What begins at zero or one matters too."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))


def speaker(size: WanSize = TINY, sound: SoundSize = SOUND, seed: int = 0) -> SpeakingWan:
    torch.manual_seed(seed)
    model = SpeakingWan(size, sound).eval().requires_grad_(False)
    shaken(model)
    return model


def flash(size: WanSize = TINY, seed: int = 0) -> FlashWan:
    torch.manual_seed(seed)
    model = FlashWan(size, ((SOUND.layers - 1) * SOUND.dim, 8, 3)).eval().requires_grad_(False)
    shaken(model)
    return model


def prompt(model: CausalWan, seed: int = 1) -> Prompt:
    words = torch.zeros(TEXT_TOKENS, model.size.text_dim)
    words[:7] = torch.randn(7, model.size.text_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.prepare(words)


def random(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class PlainVae:
    """Means of patches as latents: quick, and it counts what it is given. Steady."""

    channels, shrink, time_shrink, lag = TINY.channels, 8, 4, 0

    def __init__(self) -> None:
        self.decoded: list[Tensor] = []

    def encode(self, frames: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(frames[self.time_shrink - 1 :: self.time_shrink], self.shrink)
        return torch.cat([small, small.mean(1, keepdim=True)], 1)

    def decode(self, latents: Tensor) -> Tensor:
        self.decoded.append(latents)
        whole = nn.functional.interpolate(latents[:, :3], scale_factor=self.shrink).clamp(-1, 1)
        return whole.repeat_interleave(self.time_shrink, 0)

    def reset(self) -> None: ...
