"""The filter ``avatar-wan`` on tiny random checkpoints, as the worker drives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from safetensors.torch import save_file

from streamfx.core.errors import FilterError
from streamfx.filters.base import Block
from streamfx.filters.host import FilterHost, FilterSpec
from streamfx.filters.registry import setup_fields
from streamfx.models.avatar_wan.injection import SoundSize
from streamfx.models.causal_wan.dit import WanSize
from streamfx.models.causal_wan.vae import LightNetwork
from streamfx_plugins.avatar_wan import AvatarWan
from tests.unit.models.avatar_wan_kit import SOUND, flash, hearing_folder, speaker
from tests.unit.models.test_avatar_wan_load import saved
from tests.unit.models.test_wan_load import text_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*hf_hub_download:UserWarning")

FRAME = (96, 64)
RATE = 48_000
TARGET = "streamfx_plugins.avatar_wan:AvatarWan"
NOISE = np.random.default_rng(7).normal(0, 0.1, (2, 6 * RATE)).astype(np.float32)
SIZE = WanSize(dim=128, heads=1, hidden=64, layers=2, channels=4, text_dim=16, time_dim=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = text_folder(tmp_path_factory.mktemp("avatar"))
    saved(place / "s2v", speaker(SIZE, SoundSize(SOUND.layers, SOUND.dim, 2, (0, 1))).state_dict(), [0, 1])
    saved(place / "flash", flash(SIZE).state_dict())
    hearing_folder(place / "wav2vec")
    torch.manual_seed(4)
    save_file(LightNetwork(SIZE.channels, 4, (8, 4, 4, 4)).state_dict(), place / "light.safetensors")
    sizes = {"base_dim": 8, "z_dim": SIZE.channels, "num_res_blocks": 1, "dim_mult": [1, 1, 1, 1]}
    levels = {"latents_mean": [0.0] * SIZE.channels, "latents_std": [1.0] * SIZE.channels}
    AutoencoderKLWan(**sizes, **levels).save_pretrained(place / "vae")
    cv2.imwrite(str(place / "face.png"), np.random.default_rng(1).integers(0, 256, (50, 40, 3), np.uint8))
    return place


def host(folder: Path, kind: str = "s2v", **params: Any) -> FilterHost:
    return FilterHost(FilterSpec(TARGET, FRAME, 25.0, 1, given(folder, kind) | params))


def given(folder: Path, kind: str = "s2v") -> dict[str, Any]:
    places = {"model": kind, "audio_model": "wav2vec", "image": "face.png", "text": ".", "vae": "light.safetensors"}
    found: dict[str, Any] = {name: str(folder / place) for name, place in places.items()}
    return found | {"side": 80, "steps": 2, "window": 3, "device": "cpu", "offline": True}


def sound(first: float, seconds: float) -> NDArray[np.float32]:
    """Noise that is the same at the same moment."""
    return NOISE[:, round(first * RATE) : round((first + seconds) * RATE)]


def play(subject: FilterHost, first: float, last: float, fps: float = 25.0, silent: bool = False) -> list[Block]:
    """Blocks of four blank frames, each with its sound."""
    out = []
    for n in range(round(first * fps), round(last * fps), 4):
        block = Block(
            video=np.zeros((4, FRAME[1], FRAME[0], 3), np.uint8),
            audio=None if silent else sound(n / fps, 4 / fps),
            pts=tuple((n + k) / fps for k in range(4)),
            audio_pts=n / fps,
        )
        out.append(subject.run(block, 1.0))
    return out


def moments(blocks: list[Block]) -> list[float]:
    return [moment for block in blocks for moment in block.pts]


@pytest.fixture(scope="module")
def speaking(folder: Path) -> FilterHost:
    """Live Avatar, for all tests that begin anew."""
    return host(folder, storage="int8")


def test_pictures_come_when_the_sound_of_their_chunk_has(speaking: FilterHost) -> None:
    blocks = play(speaking, 0, 1.6)
    # A resampler holds back a few samples, so a chunk of 12 frames is complete with the block that follows it.
    assert [len(block.pts) for block in blocks] == [0, 0, 0, 4, 4, 4, 4, 4, 4, 4]
    assert moments(blocks) == [n / 25 for n in range(28)]
    shown = np.concatenate([block.frames for block in blocks if block.pts])
    assert shown.shape == (28, FRAME[1], FRAME[0], 3)
    assert len({frame.tobytes() for frame in shown}) > 20
    speaking.reset()
    again = play(speaking, 0, 1.6)
    assert all(np.array_equal(one.frames, two.frames) for one, two in zip(blocks[3:], again[3:], strict=True))


def test_another_frame_rate_shows_what_is_drawn_at_its_moments(speaking: FilterHost) -> None:
    speaking.reset()
    shown = {round(moment * 25): frame for moment, frame in frames(play(speaking, 0, 0.8))}
    speaking.reset()
    faster = frames(play(speaking, 0, 0.8, fps=50.0))
    assert len(faster) == 16, "four a call since the first chunk"
    assert all(np.array_equal(frame, shown[int(moment * 25 + 1e-6)]) for moment, frame in faster)


def frames(blocks: list[Block]) -> list[tuple[float, NDArray[np.uint8]]]:
    return [pair for block in blocks for pair in zip(block.pts, block.frames, strict=True)]


def test_the_prompt_changes_live(folder: Path, speaking: FilterHost) -> None:
    speaking.reset()
    before = play(speaking, 0, 1.12)[-1].frames
    speaking.reset()
    play(speaking, 0, 0.48)
    speaking.configure(given(folder) | {"prompt": "a sad person"})
    after = play(speaking, 0.48, 1.12)[-1].frames
    speaking.configure(given(folder))
    assert not np.array_equal(before, after)


def test_without_sound_the_picture_is_shown(speaking: FilterHost) -> None:
    speaking.reset()
    blocks = play(speaking, 0, 3.2, silent=True)
    assert [len(block.pts) for block in blocks[:12]] == [0] * 12
    still = blocks[-1].frames
    assert len(moments(blocks)) > 20
    assert np.array_equal(still[0], still[3])
    assert still.std() > 10
    late = Block(np.zeros((1, FRAME[1], FRAME[0], 3), np.uint8), pts=(9.0,))
    assert speaking.run(late, 1.0).pts == (), "what is more than three seconds behind is left out"
    assert AvatarWan.info.takes == "audio"


def test_sound_that_stops_begins_anew(speaking: FilterHost) -> None:
    speaking.reset()
    play(speaking, 0, 0.64)
    later = play(speaking, 3.2, 4.0)
    assert moments(later)[-1] > 3.2
    speaking.reset()
    fresh = play(speaking, 3.2, 4.0)
    assert np.array_equal(later[-1].frames[-1], fresh[-1].frames[-1])


def test_soulx_flash_head(folder: Path) -> None:
    subject = host(folder, "flash", vae=str(folder), side=64)
    blocks = play(subject, 0, 1.6)
    assert moments(blocks)[:5] == [0.0, 0.04, 0.08, 0.12, 0.16]
    assert all(len(block.pts) == 0 for block in blocks[:7])
    assert blocks[-1].frames.std() > 1


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"image": ""}, "give image, a file with a picture of who is to speak"),
        ({"image": "/nowhere.png"}, "image /nowhere.png cannot be read: No such file or directory"),
        ({"model": ""}, "give model, a place of Wan2.2-S2V or SoulX-FlashHead, and audio_model"),
        ({"model": "/nowhere/at-all"}, "does not exist; give the folder of the checkpoint"),
        ({"audio_model": "/nowhere/at-all"}, "does not exist; give the folder of wav2vec"),
        ({"side": 64}, "the picture is 80 x 48; both sides must be 64 pixels at least: take a larger side"),
        ({"device": "cuda:77"}, "no device 'cuda:77' here"),
        ({"loras": "style=much"}, "write PLACE or PLACE=WEIGHT"),
    ],
)
def test_what_it_cannot_do_is_a_sentence(folder: Path, params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FilterError, match=sentence) as caught:
        host(folder, **params)
    assert "Error:" not in str(caught.value), "no class names for users"


def test_files_and_networks_are_not_for_who_uses_a_server() -> None:
    names = {"image", "model", "loras", "audio_model", "text", "vae", "side", "seed", "device", "offline"}
    assert names <= set(setup_fields(AvatarWan))
    assert "prompt" not in setup_fields(AvatarWan)
