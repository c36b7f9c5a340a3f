"""Makes the training data: hours of synthetic speech with the mouth that goes with it, row by row.

    python speech_data.py DATA --hours 4

DATA then has for each part, ``train`` and ``held_out``: ``audio.npy`` ``(640 N,) int16`` at 16 kHz, ``rows.npy``
``(N, 7) float16``, ``visemes.npy`` ``(N,) uint8``, ``closures.npy`` (seconds at which a bilabial is in its middle). Row
k goes with samples ``640 k`` to ``640 (k + 1)``, over all utterances, so any piece of it may be trained on. Wants
Debian's espeak-ng and flite and its word lists, installed or unpacked at ``--root``. The same every time.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from speech_texts import sentence
from speech_voices import Espeak, Spoken, flite

from streamfx.models.avatar.visemes import PP, VISEMES, Segment, labels, trajectories

RATE, ROW = 16_000, 640
SEED = 20261125
CHUNK_S = 120.0
"""What one task makes."""

LANGUAGES = ("en-us", "en-us", "en-us", "gmw/en", "gmw/en", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc", "de", "de")
LANGUAGES += ("roa/fr", "es", "es-419", "it", "pt", "pt-br", "nl", "ru")
HELD_OUT_LANGUAGES = ("en-us", "gmw/en", "de", "roa/fr", "es", "it", "pl", "pl")
VARIANTS = ("m1", "m2", "m3", "m5", "m6", "m7", "m8", "f1", "f2", "f4", "f5", "klatt", "klatt2", "klatt3", "klatt5")
VARIANTS += ("klatt6", "Alex", "Alicia", "Andrea", "Andy", "Annie", "anika", "antonio", "aunty", "belinda", "boris")
VARIANTS += ("caleb", "croak", "david", "edward", "Gene", "Henrique", "Hugo", "Jacky", "john", "linda", "max", "michel")
VARIANTS += ("miguel", "norbert", "pablo", "quincy", "rob", "sandro", "shelby", "steph2", "Storm", "travis", "victor")
VARIANTS += ("whisper", "whisperf", "zac")
HELD_OUT_VARIANTS = ("m4", "f3", "klatt4", "steph", "Mario", "grandma", "Diogo", "Denis")
FLITE, HELD_OUT_FLITE = ("slt", "rms", "kal16"), ("awb",)

FLITE_SHARE, CODEC_SHARE, SPEED_SHARE = 0.35, 0.15, 0.6
CODECS = (
    ("libopus", "ogg", 48_000),
    ("aac", "adts", 16_000),
    ("libmp3lame", "mp3", 16_000),
    ("pcm_mulaw", "wav", 8000),
)


@dataclass(frozen=True, slots=True)
class Sources:
    dictionaries: Path
    root: Path | None
    held_out: bool


class Part(NamedTuple):
    audio: NDArray[np.int16]
    rows: NDArray[np.float16]
    visemes: NDArray[np.uint8]
    closures: NDArray[np.float64]


def resample(samples: NDArray[np.float32], ratio: float) -> tuple[NDArray[np.float32], float]:
    """To about ``ratio`` times as many samples, by the spectrum; and the ratio that it came to. Lengths are such as an
    FFT takes quickly."""
    size, whole = len(samples), _quick(len(samples))
    count = _quick(round(whole * ratio))
    spectrum = np.fft.rfft(samples, whole)
    kept = np.zeros(count // 2 + 1, spectrum.dtype)
    least = min(len(kept), len(spectrum))
    kept[:least] = spectrum[:least]
    ratio = count / whole
    return (np.fft.irfft(kept, count)[: round(size * ratio)] * ratio).astype(np.float32), ratio


def _quick(count: int) -> int:
    """The next number that has no prime factors but 2, 3 and 5."""
    best = 1 << count.bit_length()
    for threes in range(9):
        for fives in range(7):
            odd = 3**threes * 5**fives
            twos = max(0, -(-count // odd) - 1).bit_length()
            best = min(best, odd << twos)
    return best


def coded(samples: NDArray[np.float32], codec: str, container: str, rate: int, bitrate: int) -> NDArray[np.float32]:
    """Through a codec and back, in its place again: coders delay."""
    file = io.BytesIO()
    with av.open(file, "w", container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = bitrate
        to = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray((samples[None] * 32767).clip(-32768, 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate = RATE
        for piece in (*to.resample(frame), *to.resample(None)):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    file.seek(0)
    back = av.AudioResampler("s16", "mono", RATE)
    with av.open(file) as read:
        pieces = [p.to_ndarray()[0] for frame in read.decode(audio=0) for p in back.resample(frame)]
        pieces += [p.to_ndarray()[0] for p in back.resample(None)]
    found = np.concatenate(pieces).astype(np.float32) / 32768
    size = len(samples) + 8000
    both = [np.fft.rfft(x[:size], _quick(2 * size)) for x in (found, samples)]
    late = int(np.argmax(np.fft.irfft(both[0] * both[1].conj())[:8000]))
    placed = np.zeros_like(samples)
    rest = found[late : late + len(samples)]
    placed[: len(rest)] = rest
    return placed


def utterance(draw: np.random.Generator, espeak: Espeak, sources: Sources) -> tuple[NDArray[np.float32], list[Segment]]:
    """Something said by somebody, at 16 kHz."""
    spoken = _spoken(draw, espeak, sources)
    speed = draw.uniform(0.8, 1.25) if draw.random() < SPEED_SHARE and not sources.held_out else 1.0
    samples, ratio = resample(spoken.samples, RATE / spoken.rate / speed)
    speed = RATE / spoken.rate / ratio
    if draw.random() < CODEC_SHARE and not sources.held_out:
        codec, container, rate = CODECS[int(draw.integers(len(CODECS)))]
        samples = coded(samples, codec, container, rate, bitrate=int(draw.integers(12, 49)) * 1000)
    # Rates and pauses differ; where row k begins in a sound does too.
    before = draw.uniform(1.5, 4.0) if draw.random() < 0.08 else draw.uniform(0.03, 0.6)
    whole = -(-int(before * RATE + len(samples)) // ROW) * ROW
    out = np.zeros(whole, np.float32)
    begin = int(before * RATE)
    out[begin : begin + len(samples)] = samples
    shift = begin / RATE
    return out, [(a / speed + shift, b / speed + shift, viseme) for a, b, viseme in spoken.segments]


def _spoken(draw: np.random.Generator, espeak: Espeak, sources: Sources) -> Spoken:
    if draw.random() < FLITE_SHARE:
        names = HELD_OUT_FLITE if sources.held_out else FLITE
        text = sentence(draw, sources.dictionaries, "en", sources.held_out, most=14)
        pitch = draw.uniform(80, 240) if draw.random() < 0.6 else None
        stretch = draw.uniform(0.75, 1.35)
        return flite(text.replace(":", ",").replace(";", ","), str(draw.choice(names)), stretch, pitch, sources.root)
    language = str(draw.choice(HELD_OUT_LANGUAGES if sources.held_out else LANGUAGES))
    variant = str(draw.choice(HELD_OUT_VARIANTS if sources.held_out else VARIANTS))
    text = sentence(
        draw, sources.dictionaries, language.removeprefix("gmw/").removeprefix("roa/")[:2], sources.held_out
    )
    rate, pitch_range = int(draw.integers(110, 261)), int(draw.integers(20, 90))
    return espeak.speak(text, f"{language}+{variant}", rate, int(draw.integers(10, 95)), pitch_range)


def chunk(seed: tuple[int, ...], sources: Sources) -> Part:
    """About ``CHUNK_S`` of utterances, one after the other."""
    draw, espeak = np.random.default_rng(seed), Espeak()
    audio: list[NDArray[np.int16]] = []
    rows: list[NDArray[np.float32]] = []
    visemes: list[NDArray[np.int64]] = []
    middles: list[float] = []
    seconds = 0.0
    while seconds < CHUNK_S:
        try:
            samples, said = utterance(draw, espeak, sources)
        except ValueError:
            continue  # several sentences to flite: an odd word
        peak = max(float(np.abs(samples).max()), 1e-3)
        audio.append(np.round(samples * (0.5 * 32767 / peak)).astype(np.int16))
        duration = len(samples) / RATE
        rows.append(trajectories(said, duration))
        visemes.append(labels(said, duration))
        middles += [seconds + (a + b) / 2 for a, b, viseme in said if viseme == VISEMES[PP]]
        seconds += duration
    return Part(
        np.concatenate(audio),
        np.concatenate(rows).astype(np.float16),
        np.concatenate(visemes).astype(np.uint8),
        np.array(middles),
    )


def make(folder: Path, hours: float, sources: Sources) -> None:
    """All of a part, by all cores; the same on any number of them."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [(SEED, sources.held_out, at) for at in range(max(1, round(hours * 3600 / CHUNK_S)))]
    with multiprocessing.get_context("spawn").Pool() as pool:
        parts = list(pool.imap(partial(chunk, sources=sources), seeds))
    begins = np.cumsum([0, *(len(part.audio) / RATE for part in parts)])[:-1]
    joined = Part(
        np.concatenate([part.audio for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.visemes for part in parts]),
        np.concatenate([part.closures + begin for part, begin in zip(parts, begins, strict=True)]),
    )
    for name, values in joined._asdict().items():
        np.save(folder / f"{name}.npy", values)
    print(f"{folder.name}: {len(joined.audio) / RATE / 3600:.2f} h, {len(joined.closures)} bilabials", flush=True)


def load(folder: Path) -> Part:
    """A part, of which only what is used is read."""
    return Part(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Part._fields))


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes synthetic speech with the mouth that goes with it.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--root", type=Path, help="where Debian's packages are unpacked, if they are not installed")
    given = parser.parse_args()
    dictionaries = (given.root or Path("/")) / "usr/share/dict"
    make(given.data / "held_out", 0.2, Sources(dictionaries, given.root, held_out=True))
    make(given.data / "train", given.hours, Sources(dictionaries, given.root, held_out=False))


if __name__ == "__main__":
    main()
