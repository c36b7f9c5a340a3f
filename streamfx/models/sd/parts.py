"""Stable Diffusion's UNet and small autoencoder in pieces that an engine can run, and put together again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamfx.engines.base import Engine, Length, Part

_WORDS = 77
_SIZES = 6
_ROWS = 2  # one would be taken for the only number there is


class _Doubled(nn.Module):
    """What diffusers' ``Upsample2D`` of a UNet does, without its case for large batches, which would end the rows of
    an export at 63."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, size: int | None = None) -> Tensor:
        return cast(Tensor, self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest")))


class _Denoise(nn.Module):
    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = _plain(unet)

    def forward(self, sample: Tensor, timesteps: Tensor, tokens: Tensor) -> tuple[Tensor]:
        return (self.unet(sample, timesteps, tokens, return_dict=False)[0],)


class _DenoiseWide(_Denoise):
    def forward(  # type: ignore[override]
        self, sample: Tensor, timesteps: Tensor, tokens: Tensor, pooled: Tensor, sizes: Tensor
    ) -> tuple[Tensor]:
        added = {"text_embeds": pooled, "time_ids": sizes}
        return (self.unet(sample, timesteps, tokens, added_cond_kwargs=added, return_dict=False)[0],)


class _Encode(nn.Module):
    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, pictures: Tensor) -> tuple[Tensor]:
        return (self.vae.encode(pictures).latents * float(self.vae.config.scaling_factor),)


class _Decode(nn.Module):
    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        return (self.vae.decode(latents / float(self.vae.config.scaling_factor), return_dict=False)[0].clamp(-1, 1),)


def _plain(unet: nn.Module) -> nn.Module:
    """The same network, with the same weights, that can be exported for any number of rows."""
    from diffusers.models.upsampling import Upsample2D

    plain = copy.deepcopy(unet, {id(weight): weight for weight in (*unet.parameters(), *unet.buffers())})
    for place in list(plain.modules()):
        for name, child in place.named_children():
            if isinstance(child, Upsample2D) and child.use_conv:
                setattr(place, name, _Doubled(cast(nn.Module, child.conv)))
    return plain


def parts(unet: nn.Module, vae: nn.Module) -> dict[str, Part]:
    """``denoise``: a diffusers ``UNet2DConditionModel``: latents ``(R, C, H, W)``, timesteps ``(R,)``, the prompt's
    tokens ``(R, L, D)``, and for one like SDXL's the pooled prompt ``(R, P)`` and sizes ``(R, 6)`` → like the latents.
    ``encode``, ``decode``: an ``AutoencoderTiny``, as ``StableDiffusion`` calls it: pictures ``(R, 3, H, W)`` in
    [-1, 1] to latents and back; of another autoencoder there are no parts.

    R, H and W may change. H and W are multiples of what the network shrinks by: ``2 ** upsamplers`` latents for the
    UNet, 8 pixels for the usual autoencoder. Both in single precision, on the CPU.
    """
    from diffusers import AutoencoderTiny

    chance = torch.Generator().manual_seed(0)
    denoise = _denoise(unet, chance)
    if not isinstance(vae, AutoencoderTiny):
        return {"denoise": denoise}
    blocks = cast(Any, vae).config.encoder_block_out_channels
    shrink = 1 << (len(blocks) - 1)
    latents = denoise.example["sample"]
    height, width = latents.shape[-2:]
    pictures = torch.rand(_ROWS, 3, shrink * height, shrink * width, generator=chance) * 2 - 1
    return {
        "denoise": denoise,
        "encode": Part("encode", _Encode(vae), {"pictures": pictures}, ("latents",), {"pictures": _picture(shrink)}),
        "decode": Part("decode", _Decode(vae), {"latents": latents}, ("pictures",), {"latents": _picture(1)}),
    }


class EnginePiece:
    """One of ``StableDiffusion.pieces`` by an engine of its part; by ``otherwise`` where that has nothing ready."""

    def __init__(self, engine: Engine, otherwise: Callable[..., Tensor], dtype: torch.dtype) -> None:
        self._engine, self._otherwise, self._dtype = engine, otherwise, dtype

    def __call__(self, *given: Tensor) -> Tensor:
        single = tuple(x.float().contiguous() for x in given)
        if not self._engine.takes(*single):
            return self._otherwise(*given)
        (found,) = self._engine(*single)
        return found.to(self._dtype)


def _denoise(unet: nn.Module, chance: torch.Generator) -> Part:
    network = cast(Any, unet)
    config = network.config
    wide = config.addition_embed_type == "text_time"
    sides = config.sample_size if isinstance(config.sample_size, Sequence) else (config.sample_size,) * 2
    shapes = {"sample": (config.in_channels, *sides), "tokens": (_WORDS, config.cross_attention_dim)}
    if wide:
        pooled = config.projection_class_embeddings_input_dim - _SIZES * config.addition_time_embed_dim
        shapes |= {"pooled": (pooled,), "sizes": (_SIZES,)}
    example = {name: torch.randn(_ROWS, *shape, generator=chance) for name, shape in shapes.items()}
    example = {"sample": example.pop("sample"), "timesteps": torch.full((_ROWS,), 500.0), **example}
    dynamic = {name: {0: Length("rows")} for name in example} | {"sample": _picture(2**network.num_upsamplers)}
    return Part("denoise", _DenoiseWide(unet) if wide else _Denoise(unet), example, ("predicted",), dynamic)


def _picture(times: int) -> dict[int, Length]:
    return {0: Length("rows"), 2: Length("height", times), 3: Length("width", times)}
