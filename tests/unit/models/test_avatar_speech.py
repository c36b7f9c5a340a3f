"""The avatar's hearing: log-mel features, the network, its stream, its weights, its training."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from streamfx.core.errors import FilterError
from streamfx.models.avatar import load, logmel
from streamfx.models.avatar.coefficients import MOUTH
from streamfx.models.avatar.speech import AHEAD, FRAMES, LOOKAHEAD, Speech, SpeechStream
from streamfx.models.avatar.visemes import SIL, VISEMES, labels, trajectories

ROW = 640
PRESS = MOUTH.index("lips_press")
EXAMPLE = Path(__file__).parents[3] / "examples" / "train_avatar"


@pytest.fixture(scope="module")
def network() -> Speech:
    torch.manual_seed(0)
    return Speech().eval().requires_grad_(False)


def sound(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """Noise that swells, over a tone."""
    draw = np.random.default_rng(seed)
    times = np.arange(int(seconds * 16_000)) / 16_000
    noise = draw.normal(size=len(times)) * (1 + np.sin(2 * np.pi * 3 * times))
    return (0.05 * noise + 0.1 * np.sin(2 * np.pi * 180 * times)).astype(np.float32)


def test_loudness_is_in_db_of_full_scale() -> None:
    noise = torch.randn(64_000, generator=torch.Generator().manual_seed(0)) * 0.1
    assert abs(float(logmel.loudness(logmel.powers(noise)).mean()) + 20) < 1
    assert logmel.powers(noise).shape == (398, 64)


def test_features_do_not_know_the_speaker_s_level_and_do_not_raise_noise() -> None:
    said = torch.from_numpy(sound(2))
    loud, quiet = logmel.log_mel(said), logmel.log_mel(said * 0.06)
    # After the 60 ms that a sound must last to be a level.
    assert float((loud - quiet)[6:].abs().max()) < 0.01
    hiss = logmel.log_mel(torch.randn(32_000, generator=torch.Generator().manual_seed(0)) * 1e-5)
    assert float(hiss.mean()) < -0.8


def test_features_are_causal() -> None:
    said = torch.from_numpy(sound(2))
    changed = said.clone()
    changed[16_000:] = 0
    heard, other = logmel.log_mel(said), logmel.log_mel(changed)
    unchanged = (16_000 - logmel.WINDOW) // logmel.HOP + 1
    assert torch.equal(heard[:unchanged], other[:unchanged])
    assert not torch.equal(heard[unchanged], other[unchanged])


def test_level_sinks_after_a_loud_sound() -> None:
    loud = logmel.silence(logmel.LEVELS + 300)
    loud[logmel.LEVELS - 5 : logmel.LEVELS + 1] = -10
    loud[logmel.LEVELS + 50] = 0  # a click
    found = logmel.levels(loud)
    assert found[0] == -10
    assert abs(float(found[100]) + 13) < 1e-3
    assert logmel.levels(logmel.silence(logmel.LEVELS + 1))[0] == -50


@pytest.mark.parametrize("seed", range(2))
def test_rows_do_not_depend_on_how_the_sound_was_cut(network: Speech, seed: int) -> None:
    said, stream = sound(1.5), SpeechStream(network)
    whole = stream.push(said)
    stream.reset()
    draw = np.random.default_rng(seed)
    cuts = np.sort(draw.integers(0, len(said), 25))
    pieces = [stream.push(piece) for piece in np.split(said, cuts)]
    for at in range(2):
        assert np.array_equal(np.concatenate([piece[at] for piece in pieces]), whole[at])
    assert whole[0].shape == (stream.rows, 7)
    np.testing.assert_allclose(whole[1].sum(axis=1), 1, atol=1e-5)


def test_stream_computes_what_the_training_computes(network: Speech) -> None:
    said = sound(2)
    rows, _ = SpeechStream(network).push(said)
    # Two frames of silence, for rows go by fours and the first looks six ahead.
    early = AHEAD + 3 - FRAMES
    heard = logmel.log_mel(torch.from_numpy(np.pad(said, (2 * logmel.HOP, 0))))
    silent = torch.full((network.past - early, logmel.BANDS), -1.0)
    whole = network(torch.cat((silent, heard[: early + FRAMES * len(rows)]))[None]).mouth[0].numpy()
    np.testing.assert_allclose(rows, whole, atol=1e-5)


def test_a_row_comes_as_soon_as_it_can(network: Speech) -> None:
    assert LOOKAHEAD <= 0.12 * 16_000
    stream = SpeechStream(network)
    for row in range(3):
        enough = int((row + 0.5) * ROW) + LOOKAHEAD
        given = 0 if row == 0 else enough - ROW
        assert len(stream.push(np.zeros(enough - 1 - given, np.float32))[0]) == 0
        assert len(stream.push(np.zeros(1, np.float32))[0]) == 1
    assert stream.rows == 3


def test_what_comes_later_does_not_change_a_row(network: Speech) -> None:
    said = sound(2)
    other = said.copy()
    at = int(20.5 * ROW) + LOOKAHEAD
    other[at:] = 0.5
    a, b = SpeechStream(network).push(said)[0], SpeechStream(network).push(other)[0]
    assert np.array_equal(a[:21], b[:21])
    assert not np.array_equal(a[21], b[21])


def test_only_the_newest_seconds_count(network: Speech) -> None:
    """After hours nothing has drifted: the same eight seconds give the same rows, whatever was before."""
    stream, newest = SpeechStream(network), np.tile(sound(0.96, seed=2), 8)[: 180 * ROW]
    stream.push(sound(1.6, seed=1))
    rows, fresh = stream.push(newest)[0], SpeechStream(network).push(newest)[0]
    np.testing.assert_allclose(rows[-8:], fresh[-8:], atol=1e-5)
    assert np.abs(rows[-len(fresh) :] - fresh).max() > 1e-3


def test_holds_little_and_takes_what_is_broken(network: Speech) -> None:
    stream = SpeechStream(network)
    for _ in range(20):
        rows, _ = stream.push(np.full(ROW, np.nan, np.float32))
        assert np.isfinite(rows).all()
    assert len(stream._waiting) < 2 * ROW
    with pytest.raises(ValueError, match="one channel"):
        stream.push(np.zeros((2, 100), np.float32))
    assert stream.push(np.zeros(0, np.float32))[0].shape == (0, 7)


def test_forty_milliseconds_cost_little(network: Speech) -> None:
    stream, said = SpeechStream(network), sound(4)
    spent = []
    for at in range(50):
        began = time.perf_counter()
        stream.push(said[at * ROW : (at + 1) * ROW])
        spent.append(time.perf_counter() - began)
    assert min(spent[5:]) < 0.01


@pytest.fixture(scope="module")
def shipped() -> Speech:
    return load.speech()


def test_shipped_weights_are_small_and_rest_in_silence_and_hum(shipped: Speech) -> None:
    assert (load.WEIGHTS / "speech.safetensors").stat().st_size < 5_000_000
    times = np.arange(32_000) / 16_000
    for heard in (
        np.zeros(32_000),
        0.02 * np.sin(2 * np.pi * 50 * times),
        np.random.default_rng(0).normal(size=32_000) / 1e3,
    ):
        rows, visemes = SpeechStream(shipped).push(heard.astype(np.float32))
        assert rows[5:, 0].mean() < 0.1
        assert (visemes[5:].argmax(axis=1) == SIL).mean() > 0.9


def test_shipped_weights_open_the_jaw_for_a_vowel(shipped: Speech) -> None:
    """Pulses at 120 Hz through the resonances of an ``a``."""
    times = np.arange(3200) / 16_000
    voice = np.zeros(8000)
    voice[::133] = 1.0
    resonances = ((750, 90), (1200, 110), (2600, 170))
    throat = sum(np.exp(-np.pi * width * times) * np.sin(2 * np.pi * at * times) for at, width in resonances)
    vowel = np.convolve(voice, throat)[:8000]
    rest = np.zeros(8000)
    said = np.concatenate([rest, 0.2 * vowel / np.abs(vowel).max(), rest]).astype(np.float32)
    rows, _ = SpeechStream(shipped).push(said)
    assert rows[14:22, 0].mean() > 0.4
    assert rows[:10, 0].mean() < 0.1


def test_weights_that_are_missing_or_wrong_say_so(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="not in the package"):
        load.speech(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "speech.safetensors")
    with pytest.raises(FilterError, match="not what this version"):
        load.speech(tmp_path)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("av")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import train_speech

    return sys.modules[train_speech.__name__]


@pytest.mark.timeout(240)  # PyTorch's optimisers import its compiler, which takes long where there is other work
def test_training_learns_and_goes_on(training: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few seconds of noise that stands for speech, made as ``speech_data.py`` lays it out."""
    import speech_features

    monkeypatch.setattr(training, "HELD_OUT", 1)
    said = [(0.5 * at + 0.1, 0.5 * at + 0.4, VISEMES[1 + at % 14]) for at in range(28)]
    for part in ("train", "held_out"):
        folder = tmp_path / part
        folder.mkdir()
        np.save(folder / "audio.npy", (sound(16) * 20_000).astype(np.int16))
        np.save(folder / "rows.npy", trajectories(said, 16.0).astype(np.float16))
        np.save(folder / "visemes.npy", labels(said, 16.0).astype(np.uint8))
        np.save(folder / "closures.npy", np.zeros(0))
    made = speech_features.degraded((0, [0, 100]), tmp_path / "train")
    assert made.decibels.shape[:2] == (2, Speech().past + 600)
    np.savez(tmp_path / "train" / "copy-0.npz", **made._asdict())
    out = tmp_path / "out"
    training.train(tmp_path, out, minutes=9, every=100, size=2, steps=1)
    run = training.train(tmp_path, out, minutes=9, every=100, size=2, steps=2)
    assert run.step == 2
    assert len((out / "log.jsonl").read_text().splitlines()) == 2
    assert len(SpeechStream(load.speech(out)).push(sound(1))[0]) == 23
