"""Large avatars at work on a stream: in constant memory, from chunk to chunk, and back from the beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.diffusion.kv_store import Storage
from streamfx.diffusion.rope import Rope3D
from streamfx.models.avatar.hearing import RATE
from streamfx.models.avatar_wan.audio import AudioContext
from streamfx.models.avatar_wan.flash_head import SEEN, FlashHead, SoundTokens, flash_schedule
from streamfx.models.avatar_wan.live_avatar import LiveAvatar, live_schedule
from streamfx.models.avatar_wan.speaker import SpeakingWan
from streamfx.models.avatar_wan.stream import AvatarStream, Draws
from streamfx.models.causal_wan.dit import TINY
from streamfx.models.causal_wan.vae import StreamingWanVae, VideoVae
from tests.unit.models.avatar_wan_kit import SOUND, PlainVae, flash, hearing, prompt, random, shaken, speaker

SIDE = 64


def picture(seed: int = 4) -> Tensor:
    return random(3, SIDE, SIDE, seed=seed).clamp(-1, 1)


def own_vae() -> StreamingWanVae:
    torch.manual_seed(2)
    sizes = {"base_dim": 8, "z_dim": TINY.channels, "num_res_blocks": 1, "dim_mult": [1, 1, 1, 1]}
    levels = {"latents_mean": [0.0] * TINY.channels, "latents_std": [1.0] * TINY.channels}
    return StreamingWanVae(AutoencoderKLWan(**sizes, **levels).eval(), steady=True)


def live(vae: VideoVae | None = None, model: SpeakingWan | None = None, **more: Any) -> LiveAvatar:
    model = model or speaker()
    how = {"schedule": live_schedule(2), "block": 2, "window": 4} | more
    return LiveAvatar(model, vae or PlainVae(), prompt(model), picture(), **how)


def features(n: int, of: LiveAvatar | FlashHead) -> Tensor:
    layers = SOUND.layers if isinstance(of, LiveAvatar) else SOUND.layers - 1
    return random(of.hears, layers, SOUND.dim, seed=n)


def test_the_steps_are_those_of_the_distilled_models() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3)
    theirs.set_timesteps(4)
    assert torch.allclose(live_schedule().timesteps, theirs.timesteps, atol=0.1)
    assert flash_schedule().timesteps.tolist() == pytest.approx([1000.0, 937.5, 833.33, 625.0], abs=0.01)
    with pytest.raises(ValueError, match="takes 2 steps or more, not 1"):
        live_schedule(1)


@pytest.mark.parametrize("storage", ["same", "int8"])
def test_three_hundred_blocks_take_the_same_memory(storage: Storage) -> None:
    small = speaker(replace(TINY, layers=1), replace(SOUND, after=(0,)))
    subject = live(model=small, storage=storage, block=1)
    memory = [sum(cache.keys.bytes + cache.values.bytes for cache in subject.caches)]
    for n in range(300 if storage == "same" else 20):
        shown = subject.draw(features(n % 7, subject))
        if n % 50 == 19:
            memory.append(sum(cache.keys.bytes + cache.values.bytes for cache in subject.caches))
    assert shown.shape == (4, 3, SIDE, SIDE)
    assert torch.isfinite(shown).all()
    assert len(set(memory)) == 1
    assert [cache.past(1).here for cache in subject.caches] == [4]


def test_it_goes_from_noise_to_pictures_in_steps_of_euler() -> None:
    subject = live()
    speak, sigmas = subject._model.speak, [*live_schedule(2).sigma.tolist(), 0.0]
    seen: list[tuple[Tensor, Tensor]] = []

    def noted(x: Tensor, *rest: Any) -> Tensor:
        seen.append((x, speak(x, *rest)))
        return seen[-1][1]

    subject._model.speak = noted  # type: ignore[method-assign]
    found = subject.draw(features(0, subject))
    x = torch.randn(2, TINY.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    for step, (given, velocity) in enumerate(seen):
        assert torch.allclose(given, x, atol=1e-4)
        x = x + (sigmas[step + 1] - sigmas[step]) * velocity
    assert len(seen) == 2
    assert torch.allclose(PlainVae().decode(x), found, atol=1e-4)


def test_the_reference_becomes_the_first_frame_of_its_own() -> None:
    vae = PlainVae()
    subject = live(vae)
    given = subject._reference.clone()
    before = subject._anchor
    for n in range(2):
        subject.draw(features(n, subject))
    assert torch.equal(subject._reference, given)
    assert subject._anchor is before
    subject.draw(features(2, subject))
    assert torch.equal(subject._reference, vae.decoded[1][0]), "decoded[0] is the picture, that the video goes on from"
    after = subject._anchor
    assert after is not before
    subject.draw(features(3, subject))
    assert subject._anchor is after
    subject.reset()
    assert torch.equal(subject._reference, given)


def test_it_begins_anew() -> None:
    subject = live()
    first = [subject.draw(features(n, subject)) for n in range(4)]
    subject.reset()
    again = [subject.draw(features(n, subject)) for n in range(4)]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    subject.reset()
    subject.set_prompt(prompt(subject._model, 5))
    other = subject.draw(features(0, subject))
    assert not torch.allclose(other, first[0], atol=1e-4)
    louder = live()
    assert not torch.allclose(louder.draw(features(9, louder)), first[0], atol=1e-4)


def head(vae: VideoVae, side: int = SIDE) -> FlashHead:
    return FlashHead(flash(), vae, picture()[:, :side, :side], schedule=flash_schedule(2))


@pytest.mark.parametrize("make", [live, head])
def test_sound_of_any_cut_gives_the_same_pictures(make: Callable[[VideoVae], Draws]) -> None:
    sound = 0.2 * random(RATE * 5 // 2)
    whole, parts = (
        AvatarStream(model, AudioContext(hearing(), early=isinstance(model, FlashHead)))
        for model in (make(PlainVae()), make(PlainVae()))
    )
    expected, labels = whole.step(sound)
    assert labels == [n / 25 for n in range(len(expected))]
    assert len(expected) == 56
    given = [parts.step(sound[n : n + 7001]) for n in range(0, len(sound), 7001)]
    shown = torch.cat([pictures for pictures, _ in given if len(pictures)])
    assert torch.allclose(shown, expected, atol=1e-4)
    assert [label for _, some in given for label in some] == labels
    whole.reset()
    again, restarted = whole.step(sound[: RATE * 5 // 4])
    assert restarted == labels[: len(restarted)]
    assert torch.equal(again, expected[: len(again)])


def test_a_block_goes_on_from_the_one_before_in_the_autoencoder_too() -> None:
    """Chunk by chunk ≡ the picture's latent and those of all chunks, decoded as one clip."""
    vae, whole = own_vae(), own_vae()
    subject, latents = live(vae, block=1), []
    decode = vae.decode
    vae.decode = lambda x: latents.append(x) or decode(x)  # type: ignore[method-assign,func-returns-value,assignment]
    shown = torch.cat([subject.draw(features(n, subject)) for n in range(2)])
    expected = whole.decode(torch.cat([subject._motion[:1], *latents]))[4:]
    assert torch.allclose(shown, expected, atol=1e-5)
    assert torch.allclose(subject._motion[:1], whole.encode(picture()[None].expand(4, -1, -1, -1)), atol=1e-5)


def test_a_chunk_of_flash_head_is_a_clip_of_its_own() -> None:
    subject = head(own_vae(), 32)
    shown = subject.draw(features(0, subject))
    last = shown[-5:]
    assert shown.shape == (28, 3, 32, 32)
    expected = own_vae().encode(torch.cat([last[:1].expand(3, -1, -1, -1), last]))
    assert torch.allclose(subject._history, expected, atol=1e-5)


def test_another_encoder_of_sound_is_refused() -> None:
    with pytest.raises(UsageError, match="with 2 layers of 16 is not what the avatar was trained with; give wav2vec2"):
        AvatarStream(live(), AudioContext(hearing(), early=True))


@torch.no_grad()
def test_a_latent_frame_of_flash_head_hears_its_pictures_and_those_beside() -> None:
    tokens = SoundTokens(6, 5, 3, 12)
    shaken(tokens, 0.2)
    rows = random(2 + 33, 2, 3)
    found = tokens(rows)
    assert found.shape == (9, 3, 12)

    def window(picture: int) -> Tensor:
        """Five rows around a picture; what would be past the last is the last."""
        return torch.stack([rows[min(2 + picture + n, 34)] for n in range(-2, 3)])

    for latent in (1, 4, 8):
        first, *between, last = (window(1 + 4 * (latent - 1) + n) for n in range(4))
        heard = torch.cat([first[:3], *(one[2:3] for one in between), last[2:]]).flatten()
        mixed = torch.relu(tokens.proj2(torch.relu(tokens.proj1_vf(heard))))
        assert torch.allclose(found[latent], tokens.norm(tokens.proj3(mixed).reshape(3, 12)), atol=1e-5)
    mixed = torch.relu(tokens.proj2(torch.relu(tokens.proj1(window(0)[:SEEN].flatten()))))
    assert torch.allclose(found[0], tokens.norm(tokens.proj3(mixed).reshape(3, 12)), atol=1e-5)


def test_flash_head_goes_on_from_its_last_pictures() -> None:
    vae = PlainVae()
    subject = FlashHead(flash(), vae, picture(), schedule=flash_schedule(2))
    assert torch.equal(subject._history, subject._reference[:1])
    subject.draw(features(0, subject))
    history = subject._history
    assert history.shape == (2, TINY.channels, 8, 8)
    subject.draw(features(1, subject))
    first, second = vae.decoded
    assert torch.equal(first[:1], subject._reference[:1])
    assert torch.equal(second[:2], history)
    light = PlainVae()
    light.lag = 3  # type: ignore[misc]
    with pytest.raises(UsageError, match="takes no light autoencoder; choose vae full"):
        FlashHead(flash(), light, picture())


def test_half_precision() -> None:
    small, head_small = (model.to(torch.bfloat16) for model in (speaker(), flash()))
    half = picture().to(torch.bfloat16)
    for subject in (
        LiveAvatar(small, PlainVae(), prompt(small), half, schedule=live_schedule(2), block=2, window=4),
        FlashHead(head_small, PlainVae(), half, schedule=flash_schedule(2)),
    ):
        full = live() if isinstance(subject, LiveAvatar) else head(PlainVae())
        found, expected = (each.draw(features(0, each)) for each in (subject, full))
        assert found.dtype == torch.bfloat16
        # The noise is drawn in half precision too, and is another: only what it is like can be compared.
        assert found.shape == expected.shape
        assert float(found.float().std()) == pytest.approx(float(expected.std()), rel=0.2)


@torch.no_grad()
def test_frames_of_flash_head_see_each_other_and_their_own_sound() -> None:
    model = flash()
    x, reference, heard = random(3, 4, 4, 4), random(3, 4, 4, 4, seed=5), random(3, 3, TINY.dim, seed=6)
    rope, t = Rope3D(TINY.head_dim, (2, 2), 3), torch.tensor([500.0])
    found = model.see(x, t, heard, reference, rope)
    assert found.shape == x.shape
    for changed in (x, reference, heard):
        before = changed[2].clone()
        changed[2] += 1
        assert not torch.allclose(model.see(x, t, heard, reference, rope)[0], found[0], atol=1e-5), "both directions"
        changed[2] = before
