"""What the avatar costs: its parts, and a room of speakers of whom one talks.

python -m benchmarks.avatar [--side 256] [--seconds 8]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from streamfx.core.frames import AUDIO_RATE
from streamfx.filters import Block, Context
from streamfx.models.avatar.character import Character
from streamfx.models.avatar.drawing import Painter
from streamfx.models.avatar.hearing import RATE
from streamfx.models.avatar.listener import silero
from streamfx.models.avatar.load import speech
from streamfx.models.avatar.speech import SpeechStream
from streamfx_plugins.avatar import Avatar, AvatarParams

_CLIP = "examples/media/speech.wav"
_FPS = 25
_EACH = AUDIO_RATE // _FPS
_SETTLED = 6.0
"""Seconds after which a face at rest is played."""
_ROOMS = (1, 2, 4, 8)


def voice(rate: int, layout: str) -> NDArray[np.float32]:
    """The clip: ``(channels, N)``."""
    resampler = av.AudioResampler("fltp", layout, rate)
    with av.open(_CLIP) as file:
        parts = [part.to_ndarray() for frame in file.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def milliseconds(calls: list[Callable[[], object]]) -> float:
    """The median."""
    times = []
    for call in calls:
        started = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[len(times) // 4 :])


def parts() -> None:
    mono = voice(RATE, "mono")[0]
    chunks = np.split(mono[: len(mono) // 640 * 640], len(mono) // 640)
    ears, detector = SpeechStream(speech()), silero()
    print("\n| part | ms for 40 ms of stream, one core |\n|---|---:|")
    print(f"| reading lips | {milliseconds([partial(ears.push, chunk) for chunk in chunks]):.2f} |")
    print(f"| voice activity | {1.25 * milliseconds([lambda: detector(mono[:512])] * 100):.2f} |")
    chance = np.random.default_rng(0)
    for side in (224, 256, 320, 512):
        costs = []
        for seed in range(8):
            painter = Painter(Character.of(seed), side)
            poses = chance.uniform(0, 0.6, (24, 17)).astype(np.float32)
            costs.append(milliseconds([partial(painter.draw, pose) for pose in poses]))
        print(f"| drawing at {side}x{side}, eight characters | {min(costs):.1f} to {max(costs):.1f} |")


def room(speakers: int, talking: int, side: int, seconds: float, economy: bool) -> float:
    """Processor seconds for each second of a room, once all who do not talk are at rest."""
    params = [AvatarParams(character=n, economy=economy) for n in range(speakers)]
    members = [Avatar() for _ in params]
    for member, own in zip(members, params, strict=True):
        member.setup(Context((side, side), _FPS), own)
    sound = voice(AUDIO_RATE, "stereo")
    silence = np.zeros((2, _EACH), np.float32)
    blank = np.zeros((1, side, side, 3), np.uint8)
    began = 0.0
    for n in range(round((_SETTLED + seconds) * _FPS)):
        if n == round(_SETTLED * _FPS):
            began = time.process_time()
        at = n * _EACH % (sound.shape[1] - _EACH)
        for index, (member, own) in enumerate(zip(members, params, strict=True)):
            heard = sound[:, at : at + _EACH] if index < talking else silence
            member.process(Block(blank, heard, (n / _FPS,), audio_pts=n / _FPS), own)
    return (time.process_time() - began) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=256, help="pixels of each avatar")
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(describe())
    parts()
    print(f"\nProcessor seconds for each second of a room, {given.side}x{given.side} at {_FPS} pictures a second:\n")
    print("| speakers | all talk | one talks | one talks, the others rest from cache |\n|---:|---:|---:|---:|")
    for speakers in _ROOMS:
        figures = [
            room(speakers, talking, given.side, given.seconds, economy)
            for talking, economy in ((speakers, False), (1, False), (1, True))
        ]
        print(f"| {speakers} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |", flush=True)


if __name__ == "__main__":
    main()
