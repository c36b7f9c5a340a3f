"""What speech goes through before the network hears it: rooms, microphones, telephones, noise, other throats.

Everything here works on a whole batch, by its own generator, so a training may be repeated.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from streamfx.models.avatar import logmel

RATE = logmel.RATE
NONE_SHARE, NOISE_SHARE, ROOM_SHARE, BAND_SHARE = 0.08, 0.75, 0.5, 0.12
WHISPER_SHARE, CLIP_SHARE = 0.2, 0.06
WARP = 0.17
"""Throats are up to this much longer or shorter (vocal tract length perturbation)."""

SNR_DB, LEVEL_DB, BACKGROUND_DB = (0.0, 40.0), (-42.0, -12.0), (-75.0, -15.0)
_WARPS, _BLURS = 35, (0.0, 0.6, 1.2)


@cache
def other_sounds(seed: int, count: int = 24, seconds: float = 9.0) -> Tensor:
    """``(count, N)`` of sounds that are no speech, of mean square 1: chords, hums, clicks, chirps."""
    draw = torch.Generator().manual_seed(seed)
    makers = (_music, _music, _music, _hum, _clicks, _chirps)
    made = torch.stack([makers[at % len(makers)](draw, int(seconds * RATE)) for at in range(count)])
    return made / made.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)


def coloured(draw: torch.Generator, count: int, length: int) -> Tensor:
    """``(count, length)`` of noise from white to brown, of mean square 1, some of it swelling."""
    spectrum = torch.fft.rfft(torch.randn(count, length, generator=draw))
    slope = _uniform(draw, count, -0.1, 1.1)[:, None]
    spectrum = spectrum * torch.arange(1, spectrum.shape[-1] + 1).float().pow(-slope)
    noise = torch.fft.irfft(spectrum, length)
    knots = 1 + 0.8 * torch.rand(count, 1, 12, generator=draw) * (_uniform(draw, count, 0, 1) < 0.4)[:, None, None]
    noise = noise * functional.interpolate(knots, length, mode="linear")[:, 0]
    return noise / noise.square().mean(-1, keepdim=True).sqrt()


class Augment:
    """By its own generator, so it may be repeated. A hundred thousand seeds share their other sounds, for those take
    longer to make than all else."""

    def __init__(self, seed: int) -> None:
        self._draw = torch.Generator().manual_seed(seed)
        self._others = other_sounds(seed // 100_000)
        self._throats = throats()

    def vary(self, mels: Tensor) -> Tensor:
        """Mel powers ``(B, T, 64)`` to features, as heard from another throat and with something missing."""
        picks = torch.randint(len(self._throats), (len(mels),), generator=self._draw)
        return self._mask(features_of(mels @ self._throats[picks].mT))

    def degrade(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, N) float32`` of speech as a microphone gives it; and ``(B,)``, true where the speech was taken away and
        something else put there, so that the mouth is to rest."""
        draw, count = self._draw, len(clean)
        speech = clean.clone()
        breathy = self._chance(count, WHISPER_SHARE)
        if breathy.any():
            share = _uniform(draw, int(breathy.sum()), 0.3, 1.0)[:, None]
            speech[breathy] = (1 - share) * speech[breathy] + share * whispered(draw, speech[breathy])
        speech = self._filter(speech)
        none = self._chance(count, NONE_SHARE)
        loud = speech.square().mean(-1).sqrt().clamp(min=10 ** (-45 / 20))
        speech = torch.where(none, 0.0, 1 / loud)[:, None] * speech
        noisy = self._chance(count, NOISE_SHARE) | none
        gain = 10 ** (-_uniform(draw, count, *SNR_DB) / 20) * noisy
        mixed = speech + gain[:, None] * self._background(clean, none)
        # Alone, a background may be as faint as one that is under speech.
        level = torch.where(none, _uniform(draw, count, *BACKGROUND_DB), _uniform(draw, count, *LEVEL_DB))
        mixed = mixed * (10 ** (level / 20) / torch.where(none, gain, 1.0).clamp(min=1e-3))[:, None]
        peak = mixed.abs().amax(-1, keepdim=True)
        ceiling = torch.where(self._chance(count, CLIP_SHARE)[:, None], 0.3 * peak, torch.ones_like(peak))
        return torch.maximum(torch.minimum(mixed, ceiling), -ceiling), none

    def _background(self, clean: Tensor, none: Tensor) -> Tensor:
        """``(B, N)`` of mean square 1: noise, other sounds, or a crowd; no crowd where there is no speech."""
        draw, (count, length) = self._draw, clean.shape
        noise = coloured(draw, count, length)
        kinds = torch.rand(count, generator=draw)
        for at in range(count):
            if kinds[at] < 0.25:
                other = self._others[int(torch.randint(len(self._others), (1,), generator=draw))]
                begin = int(torch.randint(len(other) - length + 1, (1,), generator=draw))
                noise[at] = other[begin : begin + length] + 0.05 * noise[at]
            elif kinds[at] < 0.5 and not none[at] and count > 4:
                voices = clean[torch.randperm(count, generator=draw)[:5]].flip(0)
                turns = torch.randint(length, (5,), generator=draw)
                crowd = sum(voice.roll(int(turn)) for voice, turn in zip(voices, turns, strict=True))
                noise[at] = crowd + 0.02 * noise[at]  # type: ignore[operator]
        return noise / noise.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-3)

    def _filter(self, speech: Tensor) -> Tensor:
        """A room and a microphone."""
        draw, (count, length) = self._draw, speech.shape
        tail = int(0.6 * RATE)
        size = 1 << (length + tail - 1).bit_length()
        hertz = torch.fft.rfftfreq(size, 1 / RATE)
        octave = torch.log2(hertz.clamp(min=60.0) / 1000)
        knots = 5 * torch.randn(count, 1, 9, generator=draw)
        place = (octave + 4.06) / 7.07
        curve = functional.interpolate(knots, 256, mode="linear", align_corners=True)[:, 0]
        gain = curve[:, (place * 255).long().clamp(0, 255)]
        gain = gain + 2.0 * torch.randn(count, 1, generator=draw) * octave.clamp(-2, 3)
        response = 10 ** (gain.clamp(-40, 30) / 20)
        band = self._chance(count, BAND_SHARE)[:, None]
        low, high = _uniform(draw, count, 100, 350)[:, None], _uniform(draw, count, 3200, 4200)[:, None]
        inside = torch.sigmoid((hertz - low) / 30) * torch.sigmoid((high - hertz) / 80)
        response = torch.where(band, response * inside, response)
        room = torch.zeros(count, tail)
        room[:, 0] = 1
        times = torch.arange(tail) / RATE
        decay = 10 ** (-3 * times / _uniform(draw, count, 0.1, 0.7)[:, None]) * (times > 0.003)
        echo = torch.randn(count, tail, generator=draw) * decay
        echo = echo / echo.square().sum(-1, keepdim=True).sqrt()
        wet = 10 ** (-_uniform(draw, count, 0, 20) / 20) * self._chance(count, ROOM_SHARE)
        room = room + wet[:, None] * echo
        return torch.fft.irfft(torch.fft.rfft(speech, size) * torch.fft.rfft(room, size) * response, size)[:, :length]

    def _mask(self, features: Tensor) -> Tensor:
        """SpecAugment (Park et al., 2019): bands and moments that are not heard."""
        draw, (count, frames, bands) = self._draw, features.shape
        features = features.clone()
        for at in range(count):
            for axis, size, most, times in ((1, bands, 9, 2), (0, frames, 7, 3)):
                for _ in range(int(torch.randint(times + 1, (1,), generator=draw))):
                    width = int(torch.randint(1, most, (1,), generator=draw))
                    begin = int(torch.randint(size - width, (1,), generator=draw))
                    features[at].narrow(1 if axis else 0, begin, width).fill_(-1.0)
        return features

    def _chance(self, count: int, share: float) -> Tensor:
        return torch.rand(count, generator=self._draw) < share


def features_of(mels: Tensor) -> Tensor:
    """Mel powers ``(B, T, 64)`` to features, as if silence had been before."""
    before = logmel.silence(logmel.LEVELS).expand(len(mels), -1)
    return logmel.features(mels, logmel.levels(torch.cat((before, logmel.loudness(mels)), -1)))


def whispered(draw: torch.Generator, speech: Tensor) -> Tensor:
    """The same envelope on noise: magnitudes keep, phases are drawn."""
    window = torch.hann_window(400)
    spectrum = torch.stft(speech, 512, 128, 400, window, return_complex=True)
    phase = torch.rand(spectrum.shape, generator=draw) * (2 * math.pi)
    return torch.istft(torch.polar(spectrum.abs(), phase), 512, 128, 400, window, length=speech.shape[-1])


def throats() -> Tensor:
    """``(K, 64, 64)``: each reads the bands at other frequencies, and some blur them, as wider resonances do."""
    top = 2595 * math.log10(1 + logmel.HIGHEST_HZ / 700)
    low = 2595 * math.log10(1 + logmel.LOWEST_HZ / 700)
    space = (top - low) / (logmel.BANDS + 1)
    bands = torch.arange(logmel.BANDS).float()
    hertz = 700 * (10 ** ((low + (bands + 1) * space) / 2595) - 1)
    found = []
    for warp in torch.linspace(1 - WARP, 1 + WARP, _WARPS):
        place = ((2595 * torch.log10(1 + hertz * warp / 700) - low) / space - 1).clamp(0, logmel.BANDS - 1)
        for blur in _BLURS:
            away = (place[:, None] - bands).abs()
            weights = functional.relu(1 - away) if blur == 0 else torch.exp(-0.5 * (away / blur) ** 2)
            found.append(weights / weights.sum(1, keepdim=True))
    return torch.stack(found)


def _uniform(draw: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=draw)


def _music(draw: torch.Generator, length: int) -> Tensor:
    """Chords of a few harmonics, changing in a beat, with a drum now and then."""
    sound = torch.zeros(length)
    beat = int(float(_uniform(draw, 1, 0.15, 0.7)) * RATE)
    times = torch.arange(beat) / RATE
    fall = float(_uniform(draw, 1, 0.3, 8))
    for begin in range(0, length - beat, beat):
        for _ in range(int(torch.randint(1, 5, (1,), generator=draw))):
            root = 55 * 2 ** (float(torch.randint(0, 44, (1,), generator=draw)) / 12)
            for harmonic in range(1, 9):
                if root * harmonic < RATE / 2:
                    tone = torch.sin(2 * math.pi * root * harmonic * times + 6 * float(_uniform(draw, 1, 0, 1)))
                    sound[begin : begin + beat] += tone * torch.exp(-fall * times) / harmonic ** (1 + fall / 8)
        if float(_uniform(draw, 1, 0, 1)) < 0.4:
            sound[begin : begin + beat] += torch.randn(beat, generator=draw) * torch.exp(-60 * times)
    return sound


def _hum(draw: torch.Generator, length: int) -> Tensor:
    times = torch.arange(length) / RATE
    root = (50.0, 60.0, 100.0, 120.0)[int(torch.randint(4, (1,), generator=draw))]
    strengths = torch.rand(12, generator=draw)
    return sum(
        (strengths[at] * torch.sin(2 * math.pi * root * (at + 1) * times) for at in range(12)), torch.zeros(length)
    )


def _clicks(draw: torch.Generator, length: int) -> Tensor:
    """Keys, knocks, dishes."""
    sound = 0.003 * torch.randn(length, generator=draw)
    for _ in range(int(length / RATE * 6)):
        size = int(torch.randint(60, 1600, (1,), generator=draw))
        begin = int(torch.randint(length - size, (1,), generator=draw))
        times = torch.arange(size) / size
        tone = torch.sin(2 * math.pi * float(_uniform(draw, 1, 200, 5000)) * times * size / RATE)
        burst = (torch.randn(size, generator=draw) + tone) * torch.exp(-6 * times)
        sound[begin : begin + size] += float(_uniform(draw, 1, 0.1, 1)) * burst
    return sound


def _chirps(draw: torch.Generator, length: int) -> Tensor:
    """Birds, rings, beeps."""
    sound = 0.003 * torch.randn(length, generator=draw)
    for _ in range(int(length / RATE * 2)):
        size = int(torch.randint(800, 8000, (1,), generator=draw))
        begin = int(torch.randint(length - size, (1,), generator=draw))
        pitch = torch.linspace(*(float(_uniform(draw, 1, 300, 4000)) for _ in range(2)), size)
        sound[begin : begin + size] += torch.sin(2 * math.pi * pitch.cumsum(0) / RATE) * torch.hann_window(size)
    return sound
