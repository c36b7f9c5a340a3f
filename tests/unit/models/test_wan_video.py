"""Wan on a stream of pictures: whose pictures come out, and what changes while it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from streamfx.diffusion.guidance import Guidance
from streamfx.models.causal_wan.dit import TEXT_TOKENS, TINY, CausalWan, Prompt
from streamfx.models.causal_wan.vae import LightNetwork, LightVae, StreamingWanVae, VideoVae
from streamfx.models.causal_wan.video import CHUNK, Memory, PolicyName, VideoLook, WanVideo, schedule_for

LOOK = VideoLook(steps=2, calm=0.0, cuts=False)


def generator() -> CausalWan:
    torch.manual_seed(0)
    model = CausalWan(TINY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def prompt(model: CausalWan, seed: int = 1) -> Prompt:
    words = torch.zeros(TEXT_TOKENS, TINY.text_dim)
    words[:7] = torch.randn(7, TINY.text_dim, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.prepare(words)


def autoencoder(kind: str) -> VideoVae:
    torch.manual_seed(2)
    if kind == "light":
        network = LightNetwork(TINY.channels, 8, (16, 8, 8, 8)).eval()
        with torch.no_grad():  # so that pictures fill their range, as those of trained weights do
            network.decoder[-1].weight.mul_(30)  # type: ignore[operator]
            network.decoder[-1].bias.fill_(0.5)  # type: ignore[operator]
        return LightVae(network, steady=True)
    sizes = {"base_dim": 8, "z_dim": TINY.channels, "num_res_blocks": 1, "dim_mult": [1, 1, 1, 1]}
    levels = {"latents_mean": [0.0] * TINY.channels, "latents_std": [1.0] * TINY.channels}
    return StreamingWanVae(AutoencoderKLWan(**sizes, **levels).eval(), steady=True)


def video(kind: str = "light", joint: bool = False, memory: Memory | None = None, negative: bool = False) -> WanVideo:
    model = generator()
    against = prompt(model, 9) if negative else None
    return WanVideo(model, autoencoder(kind), prompt(model), memory=memory, joint=joint, negative=against)


def chunk(n: int, size: tuple[int, int] = (32, 32)) -> tuple[Tensor, list[float]]:
    pictures = torch.rand(CHUNK, 3, *size, generator=torch.Generator().manual_seed(n)) * 2 - 1
    return pictures, [float(CHUNK * n + i) for i in range(CHUNK)]


def play(subject: WanVideo, first: int, last: int, look: VideoLook = LOOK) -> list[tuple[Tensor, list[float]]]:
    return [subject.step(*chunk(n), look) for n in range(first, last)]


def labels(given: list[tuple[Tensor, list[float]]]) -> list[list[float]]:
    return [labels for _, labels in given]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_every_picture_has_its_label(steps: int, joint: bool) -> None:
    look = replace(LOOK, steps=steps)
    given = play(video("full", joint), 0, 6, look)
    frames = [float(n) for n in range(24)]
    assert labels(given) == [[]] * (steps - 1) + [frames[n : n + 4] for n in range(0, 24 - 4 * (steps - 1), 4)]
    assert all(tuple(shown.shape) == (len(of), 3, 32, 32) for shown, of in given)
    light = labels(play(video("light", joint), 0, 6, look))
    assert light == [[]] * (steps - 1) + [[0.0]] + [frames[n : n + 4] for n in range(1, 22 - 4 * (steps - 1) - 1, 4)]


def test_steps_change_live() -> None:
    subject = video("full")
    play(subject, 0, 3, replace(LOOK, steps=1))
    more = labels(play(subject, 3, 7, replace(LOOK, steps=3)))
    assert more == [[], [], [12.0, 13.0, 14.0, 15.0], [16.0, 17.0, 18.0, 19.0]]
    fewer = labels(play(subject, 7, 9, replace(LOOK, steps=1)))
    assert fewer == [[28.0, 29.0, 30.0, 31.0], [32.0, 33.0, 34.0, 35.0]]


@pytest.mark.parametrize("joint", [False, True])
def test_a_cut_is_a_new_beginning(joint: bool) -> None:
    look = replace(LOOK, cuts=True)

    def scene(n: int) -> Tensor:
        """Frames of one scene are alike, those of two are not."""
        base = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(n // 4)) * 2 - 1
        whole = torch.nn.functional.interpolate(base[None], (32, 32))[0]
        return (whole + 0.02 * torch.randn(CHUNK, 3, 32, 32, generator=torch.Generator().manual_seed(n))).clamp(-1, 1)

    subject, fresh = video(joint=joint), video(joint=joint)
    for n in range(4):
        subject.step(scene(n), [float(n)] * CHUNK, look)
        assert not subject.cut
    for n in range(4, 8):
        shown, of = subject.step(scene(n), [float(n)] * CHUNK, look)
        assert subject.cut == (n == 4)
        expected, expected_of = fresh.step(scene(n), [float(n)] * CHUNK, look)
        assert of == expected_of
        assert torch.equal(shown, expected)
    without = video(joint=joint)
    for n in range(8):
        shown, _ = without.step(scene(n), [float(n)] * CHUNK, LOOK)
    assert not torch.allclose(shown, expected, atol=1e-4), "the past counts where it is not forgotten"


@pytest.mark.parametrize("joint", [False, True])
def test_another_prompt(joint: bool) -> None:
    subject, other = video(joint=joint), video(joint=joint)
    play(subject, 0, 3)
    play(other, 0, 3)
    other.set_prompt(prompt(other._model, 5))
    for (one, _), (two, _) in zip(play(subject, 3, 5), play(other, 3, 5), strict=True):
        assert not torch.allclose(one, two, atol=1e-4)


@pytest.mark.parametrize(
    ("policy", "storage"), [*((name, "same") for name in get_args(PolicyName)), ("tempcache", "int8"), ("sink", "fp8")]
)
def test_every_way_to_keep_the_past(policy: PolicyName, storage: str) -> None:
    memory = Memory(policy, sinks=1, window=2, storage=storage)  # type: ignore[arg-type]
    given = play(video(memory=memory), 0, 8)
    assert all(bool(torch.isfinite(shown).all()) for shown, _ in given)
    if policy != "sink" and storage == "same":
        plain = play(video(memory=Memory("sink", 1, 2)), 0, 8)
        assert torch.equal(given[2][0], plain[2][0]), "nothing has left the window yet"
        if policy != "adaptive":  # here no sink comes to differ enough
            assert not torch.equal(given[-1][0], plain[-1][0])


def test_guidance_needs_a_negative_prompt() -> None:
    look = replace(LOOK, guidance=Guidance("full", 3.0))
    with pytest.raises(ValueError, match="needs a negative prompt"):
        play(video(), 0, 1, look)
    guided, plain = play(video(negative=True), 0, 3, look), play(video(negative=True), 0, 3)
    assert not torch.allclose(guided[-1][0], plain[-1][0], atol=1e-4)


def test_another_size_begins_anew() -> None:
    subject = video()
    play(subject, 0, 2)
    given = [subject.step(*chunk(n, (32, 48)), LOOK) for n in range(2, 5)]
    assert labels(given) == [[], [8.0], [9.0, 10.0, 11.0, 12.0]]
    assert tuple(given[-1][0].shape) == (4, 3, 32, 48)
    with pytest.raises(ValueError, match="a chunk is of 4 pictures"):
        subject.step(torch.zeros(3, 3, 32, 48), [0.0] * 3, LOOK)


def test_motion_takes_noise_away() -> None:
    still, moving = video(), video()
    look = replace(LOOK, calm=0.5)
    for n in range(4):
        still.step(chunk(0)[0][:1].expand(CHUNK, -1, -1, -1), [float(n)] * CHUNK, look)
        moving.step(*chunk(n), look)
    assert still._noise.strength == pytest.approx(look.strength, abs=0.01)
    assert moving._noise.strength < 0.7 * look.strength


@pytest.mark.parametrize("strength", [0.05, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("shift", [1.0, 5.0, 8.0])
def test_the_first_step_has_the_noise_that_was_asked_for(strength: float, shift: float) -> None:
    schedule = schedule_for(strength, 4, shift)
    assert float(schedule.sigma[0]) == pytest.approx(strength, abs=1e-6)
    assert torch.equal(schedule.sigma, schedule.sigma.sort(descending=True).values)
    if strength == 1.0 and shift == 5.0:
        assert schedule.timesteps.tolist() == pytest.approx([1000.0, 937.5, 833.33, 625.0], abs=0.01)
