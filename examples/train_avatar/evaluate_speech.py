"""How well the mouth follows the sound: held-out synthetic voices, real recordings, noise, levels, other sounds, cost.

    python evaluate_speech.py DATA --real pocketsphinx-5.1.1/test/data/librivox --json log/evaluation.json

The real recordings are LibriVox's (public domain) with alignments of phones, as the source of the PyPI package
pocketsphinx carries them: ``pip download --no-deps --no-binary :all: pocketsphinx==5.1.1``. Nothing is trained on them.
"""

from __future__ import annotations

import argparse
import json
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from speech_augment import coloured, other_sounds
from speech_data import RATE, ROW, load

from streamfx.models.avatar import load as weights
from streamfx.models.avatar import logmel
from streamfx.models.avatar.coefficients import FPS, MOUTH
from streamfx.models.avatar.speech import AHEAD, FRAMES, Speech, SpeechStream
from streamfx.models.avatar.visemes import PP, SIL, VISEMES, Segment, labels, of_arpabet, segments, trajectories

JAW, PRESS = MOUTH.index("jaw_open"), MOUTH.index("lips_press")
NEAR_S = 0.06
_LAGS = 8

Samples = NDArray[np.float32]
Rows = NDArray[np.float32]


@torch.no_grad()
def hear(model: Speech, samples: Samples) -> tuple[Rows, NDArray[np.int64]]:
    """All rows that ``samples`` decide, ``(M, 7)``, and the likeliest visemes ``(M,)``: a stream's, but at once."""
    # Silence before, so that the first row has its past; whole rows of it.
    before = -(-(model.past + FRAMES - AHEAD - 1) // FRAMES)
    skipped = before * FRAMES - (model.past + FRAMES - AHEAD - 1)
    features = logmel.log_mel(torch.from_numpy(np.pad(samples, (before * ROW, 0))))[skipped:]
    whole = (len(features) - model.past) // FRAMES * FRAMES
    heard = model(features[None, : model.past + whole])
    return heard.mouth[0].numpy(), heard.visemes[0].argmax(-1).numpy()


def correlation(a: Rows, b: Rows) -> float:
    if len(a) < 3 or a.std() < 1e-6 or b.std() < 1e-6:
        return float("nan")
    return float(np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1])


def lag_ms(found: Rows, wanted: Rows) -> float:
    """By how much ``found`` comes after ``wanted``, where they fit best; between rows by a parabola."""
    at = range(-_LAGS, _LAGS + 1)
    fits = [
        correlation(found[max(0, k) : len(found) + min(0, k)], wanted[max(0, -k) : len(wanted) - max(0, k)]) for k in at
    ]
    best = int(np.clip(np.argmax(fits), 1, len(fits) - 2))
    left, middle, right = fits[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return round(1000 / FPS * (best - _LAGS + (0.5 * (left - right) / bend if bend else 0.0)), 1)


def closures(press: Rows, middles: NDArray[np.float64]) -> dict[str, float]:
    """The share of bilabials at which the lips shut, and of shut rows that have a bilabial near."""
    times = (np.arange(len(press)) + 0.5) / FPS
    shut = times[press > 0.5]
    middles = middles[middles < times[-1] - NEAR_S]
    near = np.abs(middles[:, None] - shut[None]) if len(shut) else np.full((len(middles), 1), 9.0)
    recall = float((near.min(1) <= NEAR_S).mean()) if len(middles) else float("nan")
    # A row may be shut for as long as the closure: half of a long one more.
    precision = float((near.min(0) <= NEAR_S + 0.06).mean()) if len(middles) and len(shut) else float("nan")
    return {"closure_recall": recall, "closure_precision": precision}


def compare(
    found: Rows, visemes: NDArray[np.int64], rows: Rows, named: NDArray[np.int64], middles: NDArray[np.float64]
) -> dict[str, float]:
    count = min(len(found), len(rows))
    found, visemes, rows, named = found[:count], visemes[:count], rows[:count].astype(np.float32), named[:count]
    spoken = named != SIL
    figures = {
        "visemes": float((visemes == named).mean()),
        "visemes_without_sil": float((visemes == named)[spoken].mean()),
        "lag_ms": lag_ms(found[:, JAW], rows[:, JAW]),
        **closures(found[:, PRESS], middles),
    }
    figures |= {name: correlation(found[:, at], rows[:, at]) for at, name in enumerate(MOUTH)}
    return {name: round(value, 3) for name, value in figures.items()}


def aligned(path: Path) -> tuple[Samples, list[Segment]]:
    """A recording and its alignment, ``NAME.wav`` and ``NAME.phone.json``."""
    said = json.loads(path.read_text())
    phones = [phone for word in said["w"] for phone in word["w"]]
    timed = [(phone["b"], phone["b"] + phone["d"], str(phone["t"])) for phone in phones]
    return recorded(path.with_suffix("").with_suffix(".wav")), segments(timed, of_arpabet)


def recorded(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels()) != (RATE, 1):
            raise ValueError(f"{path.name} is not 16 kHz mono; convert it with ffmpeg -ar 16000 -ac 1")
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def envelope(samples: Samples, count: int) -> Rows:
    """How loud each row is, as an amplitude to the power of 0.6."""
    framed = np.pad(samples, (0, max(0, count * ROW - len(samples))))[: count * ROW].reshape(count, ROW)
    return np.square(framed).mean(axis=1) ** 0.3


def real(model: Speech, folder: Path) -> dict[str, Any]:
    """All recordings of ``folder``, one after the other."""
    parts: list[tuple[Rows, NDArray[np.int64], Rows, NDArray[np.int64]]] = []
    middles: list[float] = []
    loud: list[Rows] = []
    rows_so_far = 0
    for path in sorted(folder.glob("*.phone.json")):
        samples, said = aligned(path)
        found, visemes = hear(model, samples)
        count = len(found)
        parts.append((found, visemes, trajectories(said, count / FPS), labels(said, count / FPS)))
        middles += [rows_so_far / FPS + (a + b) / 2 for a, b, name in said if name == VISEMES[PP] and b < count / FPS]
        loud.append(envelope(samples, count))
        rows_so_far += count
    found, visemes, rows, named = (np.concatenate(some) for some in zip(*parts, strict=True))
    figures = compare(found, visemes, rows, named, np.array(middles))
    opening = found[:, JAW] * (1 - found[:, PRESS])
    wanted = rows[:, JAW] * (1 - rows[:, PRESS])
    sound = np.concatenate(loud)
    figures |= {
        "opening_with_envelope": round(correlation(opening, sound), 3),
        "target_opening_with_envelope": round(correlation(wanted, sound), 3),
        "jaw_mean": round(float(found[:, JAW].mean()), 3),
        "target_jaw_mean": round(float(rows[:, JAW].mean()), 3),
        "jaw_deviation": round(float(found[:, JAW].std()), 3),
        "target_jaw_deviation": round(float(rows[:, JAW].std()), 3),
        "bilabials": len(middles),
        "seconds": round(len(found) / FPS, 1),
    }
    return figures


def at_rest(model: Speech) -> dict[str, float]:
    """The mean opening of the jaw, and of what is the worst twentieth, while nobody speaks."""
    others = other_sounds(99, 12)
    draw = torch.Generator().manual_seed(99)
    heard = {
        "silence": torch.zeros(1, 9 * RATE),
        "noise": coloured(draw, 4, 9 * RATE),
        "music": others[[0, 1, 2, 6, 7, 8]],
    }
    heard |= {"hum": others[[3, 9]], "clicks": others[[4, 10]], "chirps": others[[5, 11]]}
    figures: dict[str, float] = {}
    for name, sounds in heard.items():
        for level in (-60, -30, -15):
            jaws = [hear(model, (10 ** (level / 20) * one).numpy())[0][:, JAW] for one in sounds]
            figures[f"{name} {level} dBFS"] = round(float(np.mean(jaws)), 3)
    return figures


def cost_ms(model: Speech) -> dict[str, float]:
    """Of a push of 40 ms, on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stream, spent = SpeechStream(model), []
    said = coloured(torch.Generator().manual_seed(0), 1, 20 * RATE)[0].numpy() * 0.1
    for begin in range(0, len(said), ROW):
        began = time.perf_counter()
        stream.push(said[begin : begin + ROW])
        spent.append(1000 * (time.perf_counter() - began))
    torch.set_num_threads(threads)
    return {"median": round(float(np.median(spent)), 2), "p5": round(float(np.percentile(spent, 5)), 2)}


def evaluate(data: Path, real_speech: Path | None, model: Speech) -> dict[str, Any]:
    part = load(data / "held_out")
    clean, rows, named = (
        part.audio.astype(np.float32) / 32768,
        part.rows.astype(np.float32),
        part.visemes.astype(np.int64),
    )
    found: dict[str, Any] = {"held_out": compare(*hear(model, clean), rows, named, part.closures)}
    short = slice(0, 5000 * ROW)
    piece, middles = clean[short], part.closures[part.closures < 5000 / FPS]
    noise = coloured(torch.Generator().manual_seed(5), 1, len(piece))[0].numpy()
    scale = float(np.sqrt(np.square(piece).mean()))
    for snr in (30, 20, 10, 5, 0):
        heard = hear(model, piece + (scale * 10 ** (-snr / 20) * noise).astype(np.float32))
        found[f"snr {snr} dB"] = compare(*heard, rows[:5000], named[:5000], middles)
    for level in (-45, -30, 0):
        heard = hear(model, np.clip(piece * (10 ** (level / 20) / np.abs(piece).max()), -1, 1).astype(np.float32))
        found[f"peak {level} dBFS"] = compare(*heard, rows[:5000], named[:5000], middles)
    if real_speech is not None:
        found["real"] = real(model, real_speech)
    found["jaw at rest"] = at_rest(model)
    found["push of 40 ms, ms"] = cost_ms(model)
    return found


def table(found: dict[str, Any]) -> str:
    """The comparisons as Markdown, the rest line by line."""
    names = ["visemes", "visemes_without_sil", "lag_ms", "closure_recall", "closure_precision", *MOUTH]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    compared = {name: figures for name, figures in found.items() if "visemes" in figures}
    for name, figures in compared.items():
        lines.append(f"| {name} | " + " | ".join(str(figures[column]) for column in names) + " |")
    lines.append("")
    for name, figures in found.items():
        rest = {key: value for key, value in figures.items() if name not in compared or key not in names}
        lines += [f"{name}: {key}: {value}" for key, value in rest.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluates the avatar's speech network.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--real", type=Path, help="a folder of NAME.wav with NAME.phone.json")
    parser.add_argument("--weights", type=Path, default=weights.WEIGHTS, help="the folder of speech.safetensors")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = evaluate(given.data, given.real, weights.speech(given.weights))
    print(table(found))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
