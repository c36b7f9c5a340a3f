"""The renderer: a portrait and 17 coefficients to the portrait in that pose, by few-step causal diffusion.

It is the embedded restyler's design with a pose for a style: the source is the portrait's latent, moved as a plain head
in that pose moves (``renderer_motion``); a causal diffusion transformer makes the posed picture's latent of it and of
noise, and with it what the plain head's motion lacks and how much of a place is new. The decoder draws the latent in
the detail of the moved portrait, and says for every pixel whether it is drawn or copied. So whatever only moves is
copied (as in the First Order Motion Model, arXiv 2003.00196), and mouths, lids and what is uncovered are generated.

The first frame of a past is the portrait itself: Live Avatar's rolling sink frame (arXiv 2512.04677).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamfx.models.avatar.coefficients import COEFFICIENTS
from streamfx.models.avatar.renderer_motion import FINER, motion, places
from streamfx.models.avatar.renderer_shape import ShapeNet
from streamfx.models.avatar.renderer_sketch import CHANNELS
from streamfx.models.tiny.autoencoder import SHRINK, Autoencoder, AutoencoderSize, Decoder, Features
from streamfx.models.tiny.dit import PATCH, Attention, TinyDiT, TinySize, sinusoid

GRID = SHRINK * PATCH
"""Pixels a token stands for, per side."""

_WAVES = 4
_PLACE = 4 * _WAVES + 2
_DRAWN, _LINES = 64, 48
_BOLD = 10.0
"""By how much what lines alone say is scaled, so that it is learnt sooner: mouths are much alike inside."""
_FAR = 0.1
"""In [-1, 1] units of the picture: what the transformer's motion is measured in."""


@dataclass(frozen=True, slots=True)
class RendererSize:
    """``dit``: the transformer's; ``codes``: the autoencoder's, whose ``style`` is the transformer's width."""

    dit: TinySize = TinySize(layers=4)  # noqa: RUF009 — it is frozen
    codes: AutoencoderSize = AutoencoderSize()  # noqa: RUF009


@dataclass(frozen=True, slots=True)
class Portrait:
    """What is known of a portrait: ``picture`` ``(R, 3, S, S)`` in [-1, 1], ``latents`` ``(R, C, S/8, S/8)``, the
    decoder's ``quarter`` ``(R, C', S/4, S/4)``, and the face's ``shape`` ``(R, 10) float32``."""

    picture: Tensor
    latents: Tensor
    quarter: Tensor
    shape: Tensor

    def repeated(self, times: int) -> Portrait:
        """Each portrait ``times`` times."""
        return Portrait(
            *(x.repeat_interleave(times, 0) for x in (self.picture, self.latents, self.quarter, self.shape))
        )


@dataclass(frozen=True, slots=True)
class Posed:
    """A pose, or a window of it: ``source`` ``(R, C, h, w)``, the portrait's latent moved as a plain head would be;
    ``head``, ``came``, ``sketch`` and ``hidden`` as ``Motion`` has them, but all with channels second; ``at``
    ``(R, h, w, 2)``: places in the picture, in single precision, as are ``head`` and ``came``; ``pose``: ``(R, dim)``,
    the coefficients and the portrait's look as the networks are told."""

    source: Tensor
    head: Tensor
    came: Tensor
    sketch: Tensor
    hidden: Tensor
    at: Tensor
    pose: Tensor

    def window(self, top: int, left: int, height: int, width: int) -> Posed:
        """A part of the picture, in latents."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        source, head = (x[..., rows, columns] for x in (self.source, self.head))
        finer_rows, finer_columns = (
            slice(FINER * at, FINER * (at + length)) for at, length in ((top, height), (left, width))
        )
        came, drawn, hidden = (x[..., finer_rows, finer_columns] for x in (self.came, self.sketch, self.hidden))
        return Posed(source, head, came, drawn, hidden, self.at[:, rows, columns], self.pose)


@dataclass(frozen=True, slots=True)
class Made:
    """What the transformer says: ``latents`` ``(R, C, h, w)``, ``bend`` ``(R, 2, h, w)``: what is to be added to
    ``Posed.came``; ``new`` ``(R, 1, h, w)``: logits of being drawn rather than copied."""

    latents: Tensor
    bend: Tensor
    new: Tensor


@dataclass(frozen=True, slots=True)
class Picture:
    """``pixels``: ``(R, 3, H, W)`` about [-1, 1]; ``copied``: the portrait, moved; ``new``: ``(R, 1, H, W)``, the share
    of what is drawn."""

    pixels: Tensor
    copied: Tensor
    new: Tensor


def waves(head: Tensor) -> Tensor:
    """Places of the head ``(R, 2, h, w)`` as ``(R, 18, h, w)`` numbers that vary fast and slowly."""
    near = head.clamp(-2.5, 2.5)
    angles = torch.cat([near * (math.pi / 2 * 2**n) for n in range(_WAVES)], 1)
    return torch.cat([near, angles.cos(), angles.sin()], 1)


class PortraitDiT(nn.Module):
    """The restyler's transformer, of fewer layers; a frame a row, so that each has a pose of its own."""

    def __init__(self, size: TinySize) -> None:
        super().__init__()
        self.size = size
        plain = TinyDiT(size)
        self.open, self.time, self.blocks = plain.open, plain.time, plain.blocks
        self.close_modulation, self.norm, self.close, self.refine = (
            plain.close_modulation,
            plain.norm,
            plain.close,
            plain.refine,
        )
        self.place = nn.Conv2d(_PLACE + PATCH**2 * CHANNELS, size.dim, 1)
        self.bend = nn.Linear(size.dim, 3 * PATCH**2)
        for layer in (self.place, self.bend):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, sigma: Tensor, posed: Posed, attention: Sequence[Attention]) -> Made:
        """``x``: ``(R, C, h, w)`` noisy latents, h and w even; ``sigma``: ``(R,)``; ``attention``: one a layer, of
        ``(R, 1, S, H, D)``."""
        height, width = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        given = [functional.pixel_unshuffle(some, PATCH).flatten(2).transpose(1, 2) for some in (x, posed.source)]
        face = functional.pixel_unshuffle(functional.avg_pool2d(posed.sketch, FINER), PATCH)
        where = torch.cat([waves(functional.avg_pool2d(posed.head, PATCH)).to(x), face], 1)
        tokens = self.open(torch.cat(given, -1)) + self.place(where).flatten(2).transpose(1, 2)
        condition = self.time(sinusoid(sigma).type_as(x)) + posed.pose
        tokens = tokens[:, None]
        for block, see in zip(self.blocks, attention, strict=True):
            tokens = block(tokens, condition, see, (height, width))
        shift, scale = self.close_modulation(functional.silu(condition))[:, None].chunk(2, dim=-1)
        done = torch.addcmul(shift, self.norm(tokens[:, 0]), 1 + scale)
        change, moved = (
            functional.pixel_shuffle(some.transpose(1, 2).unflatten(2, (height, width)), PATCH)
            for some in (self.close(done), self.bend(done))
        )
        change = change + self.refine(torch.cat([x, posed.source, change], 1))
        return Made(posed.source + change, _FAR * moved[:, :2], 10 * moved[:, 2:])


class PortraitDecoder(Decoder):
    """The restyler's decoder, that knows where on a head each place is, and copies what only moved."""

    def __init__(self, size: AutoencoderSize) -> None:
        super().__init__(size)
        half, quarter, _ = size.widths
        self.where = nn.Conv2d(_PLACE + CHANNELS, _DRAWN, 1)
        self.what = nn.Linear(size.style, _DRAWN)
        self.drawn = nn.Sequential(nn.SiLU(), nn.Conv2d(_DRAWN, _DRAWN, 1), nn.SiLU(), nn.Conv2d(_DRAWN, quarter, 1))
        self.lines = nn.Sequential(nn.Conv2d(CHANNELS, _LINES, 1), nn.SiLU(), nn.Conv2d(_LINES, half, 1))
        self.copied = nn.Conv2d(half, 4, 3, padding=1)
        self.painted = nn.Sequential(nn.Conv2d(CHANNELS, _LINES, 1), nn.SiLU(), nn.Conv2d(_LINES, 16, 1))
        for layer in (self.drawn[-1], self.lines[-1], self.painted[-1], self.copied):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.copied.bias, -1.0)  # type: ignore[arg-type]

    def posed(self, latents: Tensor, moved: Features, posed: Posed, new: Tensor) -> tuple[Tensor, Tensor]:
        """Latents as the encoder makes them, the moved portrait's features, and ``new`` ``(R, 1, h, w)`` → pixels
        ``(R, 3, 8 h, 8 w)`` and the share of them that is to be seen, ``(R, 1, 8 h, 8 w)``."""
        scales, shifts = self.by_style(posed.pose)[..., None, None].chunk(2, dim=1)
        eighth, quarter, half = zip(scales.split(self._widths, 1), shifts.split(self._widths, 1), strict=True)
        x = self.eighth(_scaled(self.open(latents), *eighth))
        face = torch.cat([waves(_finer(posed.head, 2)).to(latents), functional.avg_pool2d(posed.sketch, 2)], 1)
        drawn = self.drawn(self.where(face) + self.what(functional.silu(posed.pose))[..., None, None])
        x = functional.pixel_shuffle(self.to_quarter(x), 2) + self.see_quarter(moved.quarter) + drawn
        x = self.quarter(_scaled(x, *quarter))
        x = functional.pixel_shuffle(self.to_half(x), 2) + self.see_half(moved.half) + self.lines(posed.sketch)
        x = functional.silu(self.fine(_scaled(x, *half)))
        pixels, seen = (_BOLD * self.painted(posed.sketch)).split((12, 4), 1)
        shown = functional.pixel_shuffle(self.copied(x) + seen, 2) + _finer(new, SHRINK)
        return functional.pixel_shuffle(self.out(x) + pixels, 2), torch.maximum(
            shown.sigmoid(), _finer(posed.hidden, 2)
        )


class Renderer(nn.Module):
    """All of it. ``codes``: the restyler's autoencoder as it is, of which only the way in is used; ``shapes``: learnt
    before the rest."""

    def __init__(self, size: RendererSize | None = None) -> None:
        super().__init__()
        self.size = size or RendererSize()
        dim = self.size.dit.dim
        self.codes = Autoencoder(replace(self.size.codes, style=dim)).requires_grad_(False)
        self.shapes = ShapeNet().requires_grad_(False)
        self.pose = nn.Sequential(nn.Linear(len(COEFFICIENTS), dim), nn.SiLU(), nn.Linear(dim, dim))
        self.look = nn.Sequential(nn.Linear(2 * self.size.codes.channels, dim), nn.SiLU(), nn.Linear(dim, dim))
        """Of the portrait as a whole: its light, its manner of drawing."""
        nn.init.zeros_(self.look[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.look[-1].bias)  # type: ignore[arg-type]
        self.resting = nn.Parameter(torch.zeros(dim))
        """What is added for the portrait itself, which stands in the past as it is."""
        self.dit = PortraitDiT(self.size.dit)
        self.decoder = PortraitDecoder(replace(self.size.codes, style=dim))

    def see(self, pictures: Tensor) -> Portrait:
        """Of ``(R, 3, S, S)`` in [-1, 1], S a multiple of 16."""
        given = pictures.to(self.resting.dtype)
        latents, features = self.codes.encode(given)
        return Portrait(pictures.float(), latents, features.quarter.float(), self.shapes(given).float())

    def at_rest(self, portrait: Portrait) -> Posed:
        """The portrait as it is, as the frame that all others can see."""
        still = self.posed(portrait, None)
        return replace(still, pose=still.pose + self.resting)

    def posed(self, portrait: Portrait, coefficients: Tensor | None) -> Posed:
        """``coefficients``: ``(R, 17)``; None: all zero."""
        latents = portrait.latents
        side = latents.shape[-1]
        pose = latents.new_zeros(len(latents), len(COEFFICIENTS)) if coefficients is None else coefficients
        known = motion(pose.float(), portrait.shape, side)
        head, came = (x.movedim(-1, 1) for x in (known.head, known.came))
        at = places(side, side, head).expand(len(latents), -1, -1, -1)
        source = latents
        if coefficients is not None:
            source = _sampled(latents.float(), at + functional.avg_pool2d(came, FINER).movedim(1, -1)).to(latents)
        seen = torch.cat([latents.mean((2, 3)), latents.std((2, 3))], 1)
        told = self.pose(pose.to(latents)) + self.look(seen)
        return Posed(source, head, came, known.sketch.to(latents), known.hidden.to(latents), at, told)

    def draw(self, portrait: Portrait, posed: Posed, made: Made) -> Picture:
        """The picture that the transformer meant."""
        at = posed.at.movedim(-1, 1)
        coarse, fine = functional.avg_pool2d(posed.came, FINER // 2), _finer(posed.came, SHRINK // FINER)
        coarse, fine = (
            came + _finer(made.bend.float(), times) + _spread(at, times)
            for came, times in ((coarse, 2), (fine, SHRINK))
        )
        quarter = _sampled(portrait.quarter, coarse.movedim(1, -1)).to(made.latents)
        copied = _sampled(portrait.picture, fine.movedim(1, -1))
        moved = Features(functional.pixel_unshuffle(copied, 2).to(made.latents), quarter)
        latents = made.latents * self.codes.deviation + self.codes.mean
        pixels, shown = self.decoder.posed(latents, moved, posed, made.new)
        return Picture(torch.lerp(copied, pixels.float(), shown.float()), copied, shown)


def _scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)


def _sampled(x: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _finer(x: Tensor, times: int) -> Tensor:
    return functional.interpolate(x, scale_factor=float(times), mode="bilinear", align_corners=False)


def _spread(at: Tensor, times: int) -> Tensor:
    """Places of cells, ``(R, 2, h, w)``, as those of cells so many times smaller: exactly, at the edges too."""
    height, width = at.shape[-2:]
    step = at[:, 0, 0, 1] - at[:, 0, 0, 0]
    rows, columns = ((torch.arange(times * n, device=at.device) + 0.5) / times - 0.5 for n in (height, width))
    x = at[:, 0, :1, :1] + step[:, None, None] * columns[None, None]
    y = at[:, 1, :1, :1] + step[:, None, None] * rows[None, :, None]
    return torch.stack([x.expand(-1, times * height, -1), y.expand(-1, -1, times * width)], 1)
