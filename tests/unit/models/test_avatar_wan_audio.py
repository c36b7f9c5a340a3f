"""What large avatars hear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from streamfx.core.errors import UsageError
from streamfx.models.avatar.hearing import RATE, Hearing
from streamfx.models.avatar_wan.audio import SECONDS, AudioContext, load_audio
from tests.unit.models.avatar_wan_kit import SOUND, hearing, hearing_folder, random


def even(samples: torch.Tensor) -> torch.Tensor:
    return (samples - samples.mean()) / (samples.var(correction=0) + 1e-7).sqrt()


@torch.no_grad()
def test_the_newest_chunk_is_that_of_the_whole_ring_at_once() -> None:
    context, model = AudioContext(hearing(), fps=25), hearing()
    sound = 0.3 * random(3 * RATE)
    context.hear(sound[:RATE], 4)
    context.hear(sound[RATE : 2 * RATE + 777], 4)
    found = context.hear(sound[2 * RATE + 777 :], 30)
    ring = torch.cat([torch.zeros((SECONDS - 3) * RATE), sound])
    states = torch.cat(model(even(ring)[None], output_hidden_states=True).hidden_states)
    whole = torch.nn.functional.interpolate(states.mT, SECONDS * 25, mode="linear", align_corners=True).mT
    assert found.shape == (30, SOUND.layers, SOUND.dim)
    assert torch.allclose(found, whole[:, -30:].transpose(0, 1), atol=1e-5)


@torch.no_grad()
def test_early_resampling_comes_before_the_transformer() -> None:
    context, model = AudioContext(hearing(), fps=25, early=True), hearing()
    sound = 0.3 * random(SECONDS * RATE)
    found = context.hear(sound, 35)
    rows = torch.nn.functional.interpolate(
        model.feature_extractor(even(sound)[None]), SECONDS * 25, mode="linear", align_corners=True
    )
    hidden, _ = model.feature_projection(rows.mT)
    assert found.shape == (35, SOUND.layers - 1, SOUND.dim) == (35, context.layers, context.dim)
    assert torch.allclose(found[:, -1], model.encoder(hidden).last_hidden_state[0, -35:], atol=1e-5)


def test_it_forgets_what_is_too_long_ago() -> None:
    one, other = AudioContext(hearing(), fps=16), AudioContext(hearing(), fps=16)
    one.hear(random(RATE, seed=1), 4)
    newest = 0.1 * random(SECONDS * RATE, seed=2)
    kept = one.hear(newest, 4)
    assert torch.equal(kept, other.hear(newest, 4))
    one.reset()
    assert torch.equal(one.hear(newest[-100:], 4), AudioContext(hearing(), fps=16).hear(newest[-100:], 4))
    with pytest.raises(ValueError, match="features of 129 frames cannot be given: 1 to 128 are kept"):
        one.hear(newest, 129)


def test_it_is_loaded_from_a_folder(tmp_path: Path) -> None:
    folder = hearing_folder(tmp_path / "wav2vec")
    sound = 0.1 * random(RATE)
    loaded = load_audio(str(folder), offline=True)
    assert torch.allclose(loaded.hear(sound, 9), AudioContext(hearing()).hear(sound, 9), atol=1e-6)
    weights = folder / "model.safetensors"
    held = load_file(weights)
    held.pop("encoder.layers.1.attention.q_proj.weight")
    save_file(held, weights, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"wav2vec 2.0 cannot be loaded \(it lacks encoder.layers.1.attention.q_proj"):
        load_audio(str(folder), offline=True)
    with pytest.raises(UsageError, match=r"has no config\.json; give a folder of wav2vec"):
        load_audio(str(tmp_path), offline=True)
    with pytest.raises(UsageError, match="check the name and the network"):
        load_audio("nobody/nothing-of-this-name", offline=True)


def test_sound_is_joined_and_resampled() -> None:
    ear = Hearing()
    tone = np.tile(np.sin(np.arange(48_000) * 2 * np.pi * 440 / 48_000).astype(np.float32), (2, 1))
    parts, times = [], [0.0, 0.25, 0.5, 0.75]
    for time in times:
        mono, anew = ear.hear(tone[:, round(time * 48_000) : round((time + 0.25) * 48_000)], 10 + time)
        assert anew == (time == 0.0)
        parts.append(mono)
    together = np.concatenate(parts)
    assert ear.start == 10.0
    assert abs(len(together) - RATE) < 64
    expected = np.sin(np.arange(len(together)) * 2 * np.pi * 440 / RATE)
    assert np.abs(together[100:-100] - expected[100:-100]).max() < 0.02
    mono, anew = ear.hear(tone[:, :4800], 11.5)
    assert not anew, "half a second is filled with silence"
    assert abs(len(mono) - 0.6 * RATE) < 64
    assert ear.hear(tone[:, :4800], 14.0)[1]
    assert ear.start == 14.0
    assert ear.hear(tone[:, :4800], 2.0)[1]
