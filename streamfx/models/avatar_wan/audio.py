"""What is heard, as large avatars take it: features of wav2vec 2.0 (arXiv 2006.11477), a row for each video frame.

Features of a short chunk alone are unstable. So the last eight seconds are kept, all of them are encoded with every
chunk, and only what the newest frames need is taken from the end ("temporal audio context cache" of SoulX-FlashHead,
arXiv 2602.07449). At the beginning there is silence before the first sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamfx.core.errors import UsageError
from streamfx.models.avatar.hearing import RATE
from streamfx.models.explained import explained

SECONDS = 8
"""Of sound that are encoded together."""

_QUIET = 1e-7
_UNUSED = "masked_spec_embed"


class AudioContext:
    """Encodes a stream of sound. ``model``: a ``Wav2Vec2Model``, where it will run, in its dtype. ``fps``: video frames
    a second, a whole number.

    ``early``: the 50 rows a second of the convolutions become ``fps`` before the transformer (SoulX-FlashHead), and its
    input is not among the layers that are given; else all hidden states become so after it (Wan2.2-S2V).
    """

    def __init__(self, model: Any, fps: int = 25, early: bool = False) -> None:
        self._model = model.eval().requires_grad_(False)
        self._frames = SECONDS * fps
        self._early = early
        if early and not isinstance(model.feature_extractor, _Resampling):
            model.feature_extractor = _Resampling(model.feature_extractor, self._frames)
        self.reset()

    @property
    def layers(self) -> int:
        return int(self._model.config.num_hidden_layers) + (not self._early)

    @property
    def dim(self) -> int:
        return int(self._model.config.hidden_size)

    def reset(self) -> None:
        """Silence, as at the beginning."""
        self._ring = torch.zeros(SECONDS * RATE, device=self._model.device)

    @torch.no_grad()
    def hear(self, samples: Tensor, frames: int) -> Tensor:
        """Takes the newest ``(N,)`` samples at 16 kHz in [-1, 1]. Returns features ``(frames, layers, dim)`` of the
        last frames, up to now; they may last longer than these samples, but no longer than the eight seconds. Raises
        ``ValueError`` for too many."""
        if not 0 < frames <= self._frames:
            raise ValueError(f"features of {frames} frames cannot be given: 1 to {self._frames} are kept")
        self._ring = torch.cat([self._ring, samples.to(self._ring)])[-len(self._ring) :]
        # As the models were trained: mean 0 and deviation 1 over all that is heard together.
        even = (self._ring - self._ring.mean()) / (self._ring.var(correction=0) + _QUIET).sqrt()
        states = self._model(even[None].to(self._model.dtype), output_hidden_states=True).hidden_states
        rows = torch.cat(states[1:] if self._early else states)
        if not self._early:
            rows = _resampled(rows.transpose(1, 2), self._frames).transpose(1, 2)
        return rows[:, -frames:].transpose(0, 1)


class _Resampling(nn.Module):
    """The convolutions, with ``frames`` rows for all that they are given."""

    def __init__(self, convolutions: nn.Module, frames: int) -> None:
        super().__init__()
        self.convolutions = convolutions
        self._frames = frames

    def forward(self, samples: Tensor) -> Tensor:
        return _resampled(self.convolutions(samples), self._frames)


def _resampled(rows: Tensor, frames: int) -> Tensor:
    """``(B, C, T)`` → ``(B, C, frames)``, linearly; first and last stay where they are."""
    return functional.interpolate(rows.float(), frames, mode="linear", align_corners=True).to(rows.dtype)


def load_audio(
    place: str,
    *,
    fps: int = 25,
    early: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
) -> AudioContext:
    """``place``: a folder or a hub name of wav2vec 2.0: ``facebook/wav2vec2-base-960h`` for SoulX-FlashHead, the folder
    ``wav2vec2-large-xlsr-53-english`` that lies in that of Wan2.2-S2V for this. ``offline``: nothing is fetched.

    Raises ``UsageError``: what is missing or broken, and what to do.
    """
    from transformers import Wav2Vec2Model

    if Path(place).exists() and not (Path(place) / "config.json").is_file():
        raise UsageError(f"{place} has no config.json; give a folder of wav2vec 2.0 for transformers, which has")
    with explained(place, "wav2vec 2.0"):
        loaded: Any = Wav2Vec2Model.from_pretrained(
            place, dtype=dtype, local_files_only=offline, output_loading_info=True
        )
        model, report = loaded
        missing = [name for name in report["missing_keys"] if name != _UNUSED]
        if missing:
            # transformers fills these at random, and only warns.
            raise ValueError(f"it lacks {min(missing)}")
    return AudioContext(model.to(device), fps, early)
