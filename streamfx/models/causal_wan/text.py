"""Prompts for Wan: its UMT5 encoder."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.models.causal_wan.dit import TEXT_TOKENS
from streamfx.models.explained import explained

_PARTS = ("text_encoder", "tokenizer")


class WanText:
    """A UMT5 encoder and its tokenizer. Between prompts it lies in the CPU's memory, unless ``resident``: the XXL one
    of Wan is 11 GB in bfloat16, and is needed only when a prompt changes."""

    def __init__(self, tokenizer: Any, encoder: Any, device: torch.device | str, resident: bool = False) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder.eval().requires_grad_(False)
        self._device = torch.device(device)
        self._resident = resident
        if resident:
            self._encoder.to(self._device)

    @property
    def text_dim(self) -> int:
        return int(self._encoder.config.d_model)

    @torch.no_grad()
    def embed(self, prompt: str) -> Tensor:
        """``(512, text_dim)`` on the device, in the encoder's dtype: as many rows as the prompt has tokens (its end
        among them; what is past 512 is cut off), then zeros. So do Wan's own code and diffusers' ``WanPipeline``."""
        words = self._tokenizer(
            [_cleaned(prompt)], padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt"
        )
        mask = words.attention_mask.to(self._device)
        try:
            self._encoder.to(self._device)
            answer = self._encoder(words.input_ids.to(self._device), mask).last_hidden_state[0]
        finally:
            if not self._resident:
                self.offload()
        # Not a product with the mask: what the encoder makes of padding may be anything.
        return torch.where(mask[0, :, None] > 0, answer, torch.zeros_like(answer))

    def offload(self) -> None:
        """Moves the encoder to the CPU's memory; the next prompt gets it back. ``embed`` does so unless resident."""
        self._encoder.to("cpu")


def load_text(
    place: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    resident: bool = False,
    offline: bool = False,
) -> WanText:
    """``place``: a folder with ``text_encoder`` and ``tokenizer`` (diffusers' layout), or a hub name as
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers". ``offline``: nothing is fetched.

    Raises ``UsageError``: what is missing or broken, and what to do.
    """
    from transformers import AutoTokenizer, UMT5EncoderModel

    for part in _PARTS:
        if Path(place).exists() and not (Path(place) / part).is_dir():
            raise UsageError(f"{place} has no folder {part}; give a Wan folder in diffusers' layout, which has")
    with explained(place, "tokenizer"):
        tokenizer: Any = AutoTokenizer.from_pretrained(place, subfolder="tokenizer", local_files_only=offline)
    with explained(place, "text_encoder"):
        how: dict[str, Any] = {"local_files_only": offline, "use_safetensors": True, "output_loading_info": True}
        loaded: Any = UMT5EncoderModel.from_pretrained(place, subfolder="text_encoder", dtype=dtype, **how)
        encoder, report = loaded
        if report["missing_keys"]:
            # transformers fills these at random, and only warns.
            raise ValueError(f"it lacks {min(report['missing_keys'])}")
    return WanText(tokenizer, encoder, device, resident)


def _cleaned(prompt: str) -> str:
    """As the model was trained: no entities of HTML, single spaces."""
    return " ".join(html.unescape(html.unescape(prompt)).split())
