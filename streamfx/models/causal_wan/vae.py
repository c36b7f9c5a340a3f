"""Frames to latents and back, chunk after chunk of a stream: by Wan's own autoencoder, or by a light one.

Latents are normalised, as the transformer takes and gives them. Everything that is kept between chunks belongs to the
stream, not to the network, so several streams may share one; it is of constant size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamfx.core.errors import UsageError
from streamfx.models.causal_wan.load import fill, read_weights
from streamfx.models.explained import explained


class VideoVae(Protocol):
    """One stream through an autoencoder. Coding and decoding do not know of each other.

    Both kinds open with a latent of a single frame, and ``steady`` says how that looks from outside. False: as in a
    clip, 1 + 4n frames are 1 + n latents. True, for live streams: 4 frames are a latent and a latent is 4 frames in
    every call, where the first latent's one frame is given four times.
    """

    @property
    def channels(self) -> int:
        """Of the latents."""

    @property
    def shrink(self) -> int:
        """Pixels a latent's side."""

    @property
    def time_shrink(self) -> int:
        """Frames a latent, but the first."""

    @property
    def lag(self) -> int:
        """Frames that what is decoded lies behind what was encoded, with ``steady``: 0 if a chunk's latent shows that
        chunk."""

    def encode(self, frames: Tensor) -> Tensor:
        """The next ``(F, 3, H, W)`` in [-1, 1] → ``(F', C, h, w)``, in the network's dtype and on its device."""

    def decode(self, latents: Tensor) -> Tensor:
        """The next ``(F', C, h, w)`` → ``(F, 3, H, W)`` in [-1, 1], in the network's dtype and on its device."""

    def reset(self) -> None:
        """Another stream begins, perhaps of another size."""


class StreamingWanVae:
    """diffusers' ``AutoencoderKLWan``, with the features that its causal convolutions look back on kept between calls.
    Chunks of a clip in any cut ≡ its own ``encode`` (the distribution's mode) and ``decode`` of the whole.

    ``steady``: of the opening chunk only the last frame is encoded. The stream is then the clip that begins there, with
    no gap to the chunks that follow, each of which its latent shows.

    ``vae`` is where it will run, in its dtype. Its tiling and slicing are not heeded.
    """

    lag = 0

    def __init__(self, vae: Any, steady: bool = False) -> None:
        self._vae = vae.eval().requires_grad_(False)
        self._steady = steady
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=vae.device)[:, None, None]
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        self.reset()

    @property
    def channels(self) -> int:
        return int(self._vae.config.z_dim)

    @property
    def shrink(self) -> int:
        halvings = len(self._vae.config.dim_mult) - 1
        return int(2**halvings * (self._vae.config.patch_size or 1))

    @property
    def time_shrink(self) -> int:
        return int(2 ** sum(self._vae.config.temperal_downsample))

    def reset(self) -> None:
        self._seen, self._shown = (_slots(part) for part in (self._vae.encoder, self._vae.decoder))

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Takes 1 + 4n frames first and 4n then; with ``steady``, 4n always. Raises ``ValueError`` on others."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

        latents = []
        for group in self._groups(frames.to(self._vae.device, self._vae.dtype)):
            x = group.transpose(0, 1)[None]
            if self._vae.config.patch_size is not None:
                x = patchify(x, patch_size=self._vae.config.patch_size)
            moments = self._vae.quant_conv(self._vae.encoder(x, feat_cache=self._seen, feat_idx=[0]))
            mode = moments[0, : self.channels].transpose(0, 1).float()
            latents.append(((mode - self._mean) / self._std).to(self._vae.dtype))
        return torch.cat(latents)

    def _groups(self, frames: Tensor) -> list[Tensor]:
        """Those of a latent each. The network takes them so: one frame, then four and four."""
        opens = self._seen[0] is None
        first = (self.time_shrink if self._steady else 1) if opens else 0
        rest = len(frames) - first
        if len(frames) == 0 or rest < 0 or rest % self.time_shrink:
            raise ValueError(f"{len(frames)} frames do not fill their latents: {first} + {self.time_shrink} n do here")
        groups = [frames[n : n + self.time_shrink] for n in range(first, len(frames), self.time_shrink)]
        return [frames[first - 1 : first], *groups] if opens else groups

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

        raw = (latents.to(self._vae.device).float() * self._std + self._mean).to(self._vae.dtype)
        frames = []
        for latent in raw:
            opens = self._shown[0] is None
            x = self._vae.post_quant_conv(latent[None, :, None])
            x = self._vae.decoder(x, feat_cache=self._shown, feat_idx=[0], first_chunk=opens)
            if self._vae.config.patch_size is not None:
                x = unpatchify(x, patch_size=self._vae.config.patch_size)
            shown = x[0].transpose(0, 1).clamp(-1, 1)
            frames.append(_opening(shown, self.time_shrink, self._steady) if opens else shown)
        return torch.cat(frames)


def _slots(part: nn.Module) -> list[Any]:
    """An empty cache for an encoder or a decoder: a place for each causal convolution, which takes the next that is
    free as the call goes through."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    return [None] * sum(isinstance(module, WanCausalConv3d) for module in part.modules())


def _opening(shown: Tensor, count: int, steady: bool) -> Tensor:
    """Of what the first latent gives, the last frame is one."""
    return shown[-1:].expand(count if steady else 1, -1, -1, -1)


class LightVae:
    """A stream through a ``LightNetwork``.

    Its latents are the normalised ones: it has learnt those that diffusion models work on, and the reference scales and
    shifts nothing (README of TAEHV). Encoding looks three frames ahead: the latent of frames 4k … 4k + 3 stands for
    4k - 3 … 4k, and what the decoder gives before the first frame is dropped. This is how the reference's
    ``encode_video`` and ``decode_video`` fit together; with latents of Wan's own encoder nothing lags.

    ``encode`` takes any number of frames, and gives a latent once its four are there. Chunks of a clip in any cut ≡ the
    whole at once.
    """

    lag = 3

    def __init__(self, network: LightNetwork, steady: bool = False) -> None:
        self.network = network.eval().requires_grad_(False)
        self._steady = steady
        self.reset()

    @property
    def channels(self) -> int:
        return self.network.channels

    @property
    def shrink(self) -> int:
        return 8

    @property
    def time_shrink(self) -> int:
        return 4

    def reset(self) -> None:
        self._seen: dict[int, Tensor] = {}
        self._shown: dict[int, Tensor] = {}

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        return _through(self.network.encoder, (self._fitting(frames) + 1) / 2, self._seen)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        opens = not self._shown and len(latents) > 0
        frames = _through(self.network.decoder, self._fitting(latents), self._shown).clamp(0, 1) * 2 - 1
        if not opens:
            return frames
        first, rest = frames[: self.time_shrink], frames[self.time_shrink :]
        return torch.cat([_opening(first, self.time_shrink, self._steady), rest])

    def _fitting(self, x: Tensor) -> Tensor:
        weight = cast(nn.Conv2d, self.network.encoder[0]).weight
        return x.to(weight.device, weight.dtype)


class LightNetwork(nn.Module):
    """The layers of TAEHV for Wan 2.1, by the names in its checkpoints (Ollin Boer Bohan, MIT,
    https://github.com/madebyollin/taehv). ``width``: of the encoder; ``widths``: of the decoder, by size."""

    def __init__(self, channels: int = 16, width: int = 64, widths: Sequence[int] = (256, 128, 64, 64)) -> None:
        super().__init__()
        self.channels = channels
        down: list[nn.Module] = [_conv(3, width), nn.ReLU()]
        for stride in (2, 2, 1):
            down += [_TPool(width, stride), _conv(width, width, stride=2, bias=False)]
            down += [_MemBlock(width) for _ in range(3)]
        self.encoder = nn.Sequential(*down, _conv(width, channels))
        up: list[nn.Module] = [_Clamp(), _conv(channels, widths[0]), nn.ReLU()]
        for before, after, stride in zip(widths, widths[1:], (1, 2, 2), strict=False):
            up += [_MemBlock(before) for _ in range(3)]
            up += [nn.Upsample(scale_factor=2), _TGrow(before, stride), _conv(before, after, bias=False)]
        self.decoder = nn.Sequential(*up, nn.ReLU(), _conv(widths[-1], 3))


def _conv(before: int, after: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=bias)


class _Clamp(nn.Module):
    """Softly into (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _MemBlock(nn.Module):
    """A residual block on each frame and the one before it, ``(F, C, h, w)`` both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(inplace=True), _conv(width, width), nn.ReLU(inplace=True),
            _conv(width, width),
        )  # fmt: skip

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        return functional.relu(self.conv(torch.cat([x, past], dim=1)) + x)


class _TPool(nn.Module):
    """Every ``stride`` frames to one: ``(stride F, C, h, w)`` → ``(F, C, h, w)``."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width * stride, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x.reshape(len(x) // self.stride, self.stride * x.shape[1], *x.shape[2:])))


class _TGrow(nn.Module):
    """Every frame to ``stride``: ``(F, C, h, w)`` → ``(stride F, C, h, w)``."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x).reshape(len(x) * self.stride, *x.shape[1:]))


def _through(layers: nn.Sequential, x: Tensor, memory: dict[int, Tensor]) -> Tensor:
    """The next frames through all layers. ``memory``: by layer, the last frame that a block saw, or the frames that do
    not fill a group yet. Copies, as a view would hold on to its whole chunk."""
    for n, layer in enumerate(layers):
        if isinstance(layer, _MemBlock):
            if len(x):
                past = memory.get(n, torch.zeros_like(x[:1]))
                memory[n] = x[-1:].clone()
                x = layer(x, torch.cat([past, x[:-1]]))
        elif isinstance(layer, _TPool):
            x = torch.cat([memory.pop(n), x]) if n in memory else x
            whole = len(x) - len(x) % layer.stride
            if whole < len(x):
                memory[n] = x[whole:].clone()
            x = layer(x[:whole])
        else:
            x = layer(x)
    return x


def load_vae(
    place: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
) -> VideoVae:
    """Steady. ``place``: a file of a light autoencoder; or a folder or hub name that has Wan's own in ``vae``.
    ``offline``: nothing is fetched. Raises ``UsageError``: what is missing or broken, and what to do."""
    if Path(place).suffix in {".pth", ".safetensors"}:
        return load_light_vae(place, steady=True, device=device, dtype=dtype)
    from diffusers import AutoencoderKLWan

    with explained(place, "vae"):
        network: Any = AutoencoderKLWan.from_pretrained(
            place, subfolder="vae", local_files_only=offline, torch_dtype=dtype
        )
    return StreamingWanVae(network.to(device), steady=True)


def load_light_vae(
    path: str,
    *,
    steady: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LightVae:
    """``path``: ``taew2_1.pth`` or ``taew2_1.safetensors``, or of the same layers in other widths. More streams on the
    same weights: ``LightVae(loaded.network)``.

    Raises ``UsageError``: what is missing or broken, and what to do.
    """
    weights = {name: value for name, value in read_weights(path).items() if isinstance(value, Tensor)}
    telling = ["encoder.0.weight", *(f"decoder.{n}.weight" for n in (1, 8, 14, 20))]
    if any(name not in weights or weights[name].dim() != 4 for name in telling):
        raise UsageError(f"{path} is no light autoencoder; give taew2_1 of TAEHV, as .pth or .safetensors")
    width, *widths = (weights[name].shape[0] for name in telling)
    with torch.device("meta"):
        network = LightNetwork(weights["decoder.1.weight"].shape[1], width, widths)
    for name, expected in network.state_dict().items():
        # Some checkpoints of the family grow time in a layer where ours does not: its last frame is the one (TAEHV).
        if name in weights and isinstance(network.get_submodule(name.rsplit(".", 2)[0]), _TGrow):
            weights[name] = weights[name][-expected.shape[0] :]
    fill(network, weights, path, device, dtype)
    return LightVae(network, steady)
