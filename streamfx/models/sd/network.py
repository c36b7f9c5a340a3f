"""The UNet with its prompt, as a model for the stream batch; pictures to latents and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from streamfx.diffusion.stream_batch import Call

_MOST_STEPS = 8


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """A prompt made ready: ``tokens`` ``(L, D)`` for cross attention, and for SDXL ``pooled`` ``(P,)``."""

    tokens: Tensor
    pooled: Tensor | None = None

    def blended(self, other: TextEmbedding, share: float) -> TextEmbedding:
        """``share`` (0 … 1) of the way to another prompt, on a straight line."""
        pooled = None
        if self.pooled is not None and other.pooled is not None:
            pooled = torch.lerp(self.pooled, other.pooled, share)
        return TextEmbedding(torch.lerp(self.tokens, other.tokens, share), pooled)


class StableDiffusion:
    """A ``stream_batch.Model`` of a diffusers ``UNet2DConditionModel``, with an autoencoder (an ``AutoencoderTiny``, or
    the full ``AutoencoderKL``), and perhaps a ``ControlNetModel``.

    Prompts are embeddings: the text encoder is needed when they change, and may be elsewhere in between. ``pieces``:
    what its networks are called by, with the inputs of the ``Part`` of that name; an engine may take one's place.
    """

    def __init__(
        self,
        unet: nn.Module,
        vae: nn.Module,
        device: torch.device | str,
        dtype: torch.dtype,
        control: nn.Module | None = None,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.unet: Any = _placed(unet, self.device, dtype)
        self.vae: Any = _placed(vae, self.device, dtype)
        self._control: Any = _placed(control, self.device, dtype) if control is not None else None
        self._hints: deque[Tensor] = deque(maxlen=_MOST_STEPS)
        self.control_scale = 1.0
        self._prompt: TextEmbedding | None = None
        self._negative: TextEmbedding | None = None
        self.pieces: dict[str, Callable[..., Tensor]] = {
            "encode": self._encoded,
            "denoise": self._denoised,
            "decode": self._decoded,
        }
        self._wide = getattr(self.unet.config, "addition_embed_type", None) == "text_time"

    @property
    def channels(self) -> int:
        """Of the latent."""
        return int(self.unet.config.in_channels)

    @property
    def shrink(self) -> int:
        """Pixels a latent stands for, per side."""
        config = self.vae.config
        blocks = getattr(config, "encoder_block_out_channels", None) or config.block_out_channels
        return 1 << (len(blocks) - 1)

    def set_prompt(self, prompt: TextEmbedding, negative: TextEmbedding | None = None) -> None:
        """From the next call on. ``negative`` is used with full and onetime guidance; without one that is the prompt
        of zeros."""
        self._prompt = self._moved(prompt)
        if negative is None:
            pooled = None if prompt.pooled is None else torch.zeros_like(prompt.pooled)
            negative = TextEmbedding(torch.zeros_like(prompt.tokens), pooled)
        self._negative = self._moved(negative)

    @property
    def controlled(self) -> bool:
        """Whether it wants a hint with each frame."""
        return self._control is not None

    def hint(self, pictures: Tensor) -> None:
        """What the ControlNet goes by (contours, depths) for the frames of the next call: ``(F, 3, H, W)`` in [0, 1].
        Once before each call: a row that is at step s is of the frames that came s calls ago."""
        self._hints.appendleft(pictures.to(self.device, self.dtype))

    def _moved(self, prompt: TextEmbedding) -> TextEmbedding:
        pooled = None if prompt.pooled is None else prompt.pooled.to(self.device, self.dtype)
        return TextEmbedding(prompt.tokens.to(self.device, self.dtype), pooled)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """``(F, 3, H, W)`` in [-1, 1], sides multiples of ``shrink``, to latents ``(F, C, H', W')``.

        The full autoencoder gives the mode of its distribution, so that a still picture has still latents.
        """
        return self.pieces["encode"](pictures.to(self.device, self.dtype))

    def _encoded(self, pictures: Tensor) -> Tensor:
        encoded = self.vae.encode(pictures)
        latents = cast(Tensor, encoded.latents) if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latents * float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(F, C, H', W')`` to pictures ``(F, 3, H, W)`` in [-1, 1]."""
        return self.pieces["decode"](latents)

    def _decoded(self, latents: Tensor) -> Tensor:
        decoded = self.vae.decode(latents / float(self.vae.config.scaling_factor), return_dict=False)[0]
        return cast(Tensor, decoded).clamp(-1, 1)

    def __call__(self, x: Tensor, timesteps: Tensor, call: Call) -> Tensor:
        if self._prompt is None or self._negative is None:
            raise ValueError("no prompt was set; call set_prompt first")
        rows, frames = x.shape[:2]
        negative = call.unconditional * frames
        tokens = self._each(self._negative.tokens, self._prompt.tokens, negative, rows * frames)
        given = [x.flatten(0, 1), timesteps.repeat_interleave(frames), tokens]
        if self._wide:
            if self._prompt.pooled is None or self._negative.pooled is None:
                raise ValueError("this model wants the pooled embedding of the prompt as well")
            pooled = self._each(self._negative.pooled, self._prompt.pooled, negative, rows * frames)
            given += [pooled, self._sizes(x).expand(len(pooled), -1)]
        if self._control is None:
            return self.pieces["denoise"](*given).reshape(x.shape)
        steps = (*call.steps[: call.unconditional], *call.steps)
        hints = torch.cat([self._hints[step] for step in steps])
        return self._steered(hints, *given).reshape(x.shape)

    def _denoised(self, *given: Tensor, **more: Any) -> Tensor:
        """``given``: as in ``parts``. ``more``: for the UNet."""
        return cast(Tensor, self.unet(*given[:2], **self._added(*given), **more)[0])

    def _steered(self, hints: Tensor, *given: Tensor) -> Tensor:
        scale = self.control_scale
        down, middle = self._control(*given[:2], controlnet_cond=hints, conditioning_scale=scale, **self._added(*given))
        return self._denoised(*given, down_block_additional_residuals=down, mid_block_additional_residual=middle)

    def _added(self, *given: Tensor) -> dict[str, Any]:
        """All but latents and timesteps, by the names that diffusers has for them."""
        _, _, tokens, *wide = given
        named: dict[str, Any] = {"encoder_hidden_states": tokens, "return_dict": False}
        if wide:
            named["added_cond_kwargs"] = dict(zip(("text_embeds", "time_ids"), wide, strict=True))
        return named

    @staticmethod
    def _each(negative: Tensor, prompt: Tensor, leading: int, count: int) -> Tensor:
        """The embedding of every latent in the batch: the leading ones without the prompt."""
        parts = [negative.expand(leading, *negative.shape), prompt.expand(count - leading, *prompt.shape)]
        return torch.cat(parts) if leading else parts[1]

    def _sizes(self, x: Tensor) -> Tensor:
        """SDXL is told the size of its training picture, the crop and the target: ours, whole, ours."""
        height, width = self.shrink * int(x.shape[-2]), self.shrink * int(x.shape[-1])
        return torch.tensor([[height, width, 0, 0, height, width]], device=self.device, dtype=self.dtype)


def _placed(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Ready for inference on ``device``. diffusers warns of any cast, so there is none without need."""
    module = module.eval().requires_grad_(False).to(device)
    return module if next(module.parameters()).dtype == dtype else module.to(dtype)
