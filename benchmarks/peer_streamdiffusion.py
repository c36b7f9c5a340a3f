"""The package ``streamdiffusion`` of PyPI (0.1.1) on weights of ours, unmodified.

    pip install --no-deps streamdiffusion        # its own requirements are of 2023; it runs with present diffusers

It times itself with CUDA events; on a CPU they are replaced by ones that measure nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def is_installed() -> bool:
    return importlib.util.find_spec("streamdiffusion") is not None


class _NoEvent:
    """Stands for ``torch.cuda.Event`` where there is no CUDA."""

    def __init__(self, enable_timing: bool = False) -> None: ...

    def record(self) -> None: ...

    def elapsed_time(self, end: object) -> float:
        return 0.0


def peer(unet: nn.Module, vae: nn.Module, tokens: Tensor, indices: Sequence[int], side: int, cfg: str) -> Any:
    """Their ``StreamDiffusion``, prepared: call it with a picture ``(1, 3, 8 side, 8 side)`` in [0, 1].

    ``tokens``: ``(77, D)``, the prompt's embedding; without a prompt it is zeros. ``cfg``: "none", "self", "initialize"
    (onetime-negative) or "full".
    """
    from diffusers import LCMScheduler, StableDiffusionPipeline
    from streamdiffusion.pipeline import StreamDiffusion

    if not torch.cuda.is_available():
        torch.cuda.Event = _NoEvent  # type: ignore[assignment, misc]
        torch.cuda.synchronize = lambda device=None: None

    class Pipe(StableDiffusionPipeline):
        """Its prompts are embeddings."""

        def encode_prompt(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            embedded = tokens[None].to(self.device, unet.dtype)
            return embedded, torch.zeros_like(embedded)

    scheduler = LCMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    pipe = Pipe(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs = StreamDiffusion(pipe, list(indices), unet.dtype, 8 * side, 8 * side, cfg_type=cfg)
    theirs.prepare("", num_inference_steps=50, guidance_scale=1.2, generator=torch.Generator())
    return theirs
