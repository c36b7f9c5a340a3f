"""Wan2.2-S2V with a cache and an anchor against all its tokens at once, and its parts against their descriptions."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.normalization import AdaLayerNorm
from torch import Tensor
from torch.nn import functional

from streamfx.diffusion.explicit_past import turned
from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx.models.avatar_wan.anchor import AHEAD, MOTION, Anchored, FramePacker, turns_of
from streamfx.models.avatar_wan.injection import LEAD, AudioEncoder, AudioInjector, Heard
from streamfx.models.avatar_wan.speaker import SpeakingWan
from streamfx.models.avatar_wan.tokens import unpatched
from streamfx.models.causal_wan.dit import TINY, Cached, Prompt, sinusoid
from tests.unit.models.avatar_wan_kit import SOUND, prompt, random, shaken, speaker

HEIGHT, WIDTH = 8, 8
GRID = (HEIGHT // 2, WIDTH // 2)
BLOCK = 2


REFERENCE = random(TINY.channels, HEIGHT, WIDTH, seed=8)
MOTION_LATENTS = random(MOTION, TINY.channels, HEIGHT, WIDTH, seed=9)


def all_at_once(model: SpeakingWan, block: Tensor, timestep: float, heard: Heard, asked: Prompt, start: int) -> Tensor:
    """The velocity of a block at ``start``, by one sequence of its tokens and the anchor's, at absolute places. Those
    of the anchor are at timestep 0, and see each other alone."""
    mask, frames, spots = model.trainable_cond_mask.weight, len(block), GRID[0] * GRID[1]
    packed, noisy = model.frame_packer(MOTION_LATENTS), frames * spots

    def patches(latents: Tensor) -> Tensor:
        return model.patch_embedding(latents.transpose(0, 1)[None])[0].flatten(1).T

    def placed(time: int) -> Tensor:
        return torch.tensor([[time, row, column] for row in range(GRID[0]) for column in range(GRID[1])])

    x = torch.cat(
        [
            patches(block) + mask[0] + model.cond_encoder.bias,
            patches(REFERENCE[None]) + mask[1],
            *(one.tokens + mask[2] for one in packed),
        ]
    )
    places = [*(placed(start + n) for n in range(frames)), placed(start + AHEAD)]
    places += [one.places + torch.tensor([start, 0, 0]) for one in packed]
    turns = turns_of(torch.cat(places), TINY.head_dim)
    time = model.time_embedding(sinusoid(torch.tensor([timestep, 0.0]), TINY.time_dim))
    kind = (torch.arange(len(x)) >= noisy).long()
    modulation = model.time_projection(time).reshape(2, 6, TINY.dim)[kind]
    may = (kind[:, None] == 0) | (kind[None] == 1)
    for layer, (part, words) in enumerate(zip(model.blocks, asked.layers, strict=True)):
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (part.modulation + modulation).unbind(1)
        normed = functional.layer_norm(x, x.shape[-1:], eps=TINY.eps) * (1 + scale) + shift
        keys, values = part.self_attn.keys_values(normed)
        query, keys = (turned(each, turns, 0) for each in (part.self_attn.queries(normed), keys))
        x = x + gate * part.self_attn.out(mixed(query, keys, values, may))
        x = x + part.cross_attn.out(mixed(part.cross_attn.queries(part.norm3(x)), *words))
        normed = functional.layer_norm(x, x.shape[-1:], eps=TINY.eps) * (1 + ff_scale) + ff_shift
        x = x + ff_gate * part.ffn(normed)
        spoken = model.audio_injector(layer, x[:noisy].reshape(1, frames, spots, -1), heard)
        x = torch.cat([spoken.reshape(noisy, -1), x[noisy:]])
    return unpatched(model.head(x[:noisy].reshape(1, frames, spots, -1), time[:1, None]), block)


def mixed(query: Tensor, keys: Tensor, values: Tensor, may: Tensor | None = None) -> Tensor:
    heads = (part.transpose(0, 1) for part in (query, keys, values))
    return functional.scaled_dot_product_attention(*heads, attn_mask=may).transpose(0, 1)


@pytest.mark.parametrize("start", [0, 700])
@torch.no_grad()
def test_a_block_is_what_all_tokens_at_once_are(start: int) -> None:
    """And the same wherever it stands: reference and motion move along."""
    model = speaker()
    asked, x = prompt(model), random(BLOCK, TINY.channels, HEIGHT, WIDTH)
    heard = model.listen(random(LEAD + 4 * BLOCK, SOUND.layers, SOUND.dim), BLOCK)
    expected = all_at_once(model, x, 640.0, heard, asked, start)
    assert torch.allclose(spoken(model, asked, x, heard), expected, atol=1e-4)


def spoken(
    model: SpeakingWan,
    asked: Prompt,
    x: Tensor,
    heard: Heard,
    blocks: int = 1,
    reference: Tensor = REFERENCE,
    motion: Tensor = MOTION_LATENTS,
) -> Tensor:
    """The velocity of the last of ``blocks`` blocks that are all ``x``."""
    anchor, rope = model.anchor(reference, motion, asked), Rope3D(TINY.head_dim, GRID, 16)
    size = CacheSize(1, 0, 4, GRID[0] * GRID[1], TINY.heads, TINY.head_dim)
    caches = [LayerCache(size) for _ in model.blocks]
    for _ in range(blocks):
        see = [Anchored(one, cache, 0, rope) for one, cache in zip(anchor.layers, caches, strict=True)]
        found = model.speak(x, torch.tensor([640.0]), asked, heard, see)
    return found


@torch.no_grad()
def test_everything_matters() -> None:
    model = speaker()
    asked, x = prompt(model), random(BLOCK, TINY.channels, HEIGHT, WIDTH)
    features = random(LEAD + 4 * BLOCK, SOUND.layers, SOUND.dim)
    heard = model.listen(features, BLOCK)
    first = spoken(model, asked, x, heard)
    others = [
        spoken(model, prompt(model, 5), x, heard),
        spoken(model, asked, x, heard, reference=REFERENCE + 1),
        spoken(model, asked, x, heard, motion=MOTION_LATENTS.flip(0)),
        spoken(model, asked, x, model.listen(features.flip(0), BLOCK)),
        spoken(model, asked, x, heard, blocks=2),
    ]
    assert all(not torch.allclose(first, other, atol=1e-5) for other in others)
    with pytest.raises(ValueError, match="takes 19 latent frames of motion, not 3"):
        model.anchor(REFERENCE, MOTION_LATENTS[:3], asked)


@torch.no_grad()
def test_without_an_anchor_the_past_is_seen_as_by_the_causal_model() -> None:
    """Block by block, until the window has been left several times."""
    of, rope = speaker().blocks[0].self_attn, Rope3D(TINY.head_dim, GRID, 16)
    size = CacheSize(2, 0, 5, GRID[0] * GRID[1], TINY.heads, TINY.head_dim)
    ours, theirs, nothing = LayerCache(size), LayerCache(size), torch.zeros(0, TINY.heads, TINY.head_dim)
    for n in range(9):
        x = random(1, BLOCK, GRID[0] * GRID[1], TINY.dim, seed=n)
        found = Anchored((nothing, nothing), ours, 1, rope)(of, x)
        assert torch.allclose(found, Cached(theirs, [1], rope, remember=True)(of, x), atol=1e-5)
    assert torch.equal(ours.past(1).keys, theirs.past(1).keys)
    assert ours.past(0).here == 0


@torch.no_grad()
def test_the_past_is_packed_the_smaller_the_longer_ago() -> None:
    packer = FramePacker(4, 12)
    shaken(packer)
    motion = random(MOTION, 4, 16, 24)
    near, middle, far = packer(motion)
    assert [len(part.tokens) for part in (near, middle, far)] == [8 * 12, 4 * 6, 4 * 2 * 3]
    assert near.places.unique(dim=0)[:, 0].unique().tolist() == [-1]
    assert middle.places[:, 0].unique().tolist() == [-3]
    assert far.places[:, 0].unique().tolist() == [-19, -14, -9, -4]
    assert far.places[:, 1].unique().tolist() == [0, 7]
    assert middle.places[:, 2].unique().tolist() == [0, 2, 4, 6, 8, 11]
    motion[:16] += 1
    again = packer(motion)
    assert torch.equal(again[0].tokens, near.tokens)
    assert torch.equal(again[1].tokens, middle.tokens)
    assert not torch.equal(again[2].tokens, far.tokens)


def test_turns_are_those_of_the_frames_tables() -> None:
    rope, x = Rope3D(TINY.head_dim, GRID, 8), random(3, GRID[0] * GRID[1], TINY.heads, TINY.head_dim)
    places = torch.tensor([[n, row, column] for n in (-2, 0, 5) for row in range(GRID[0]) for column in range(GRID[1])])
    expected = rope.time(rope.space(x), torch.tensor([-2, 0, 5]))
    found = turned(x.flatten(0, 1), turns_of(places, TINY.head_dim), 0)
    assert torch.allclose(found, expected.flatten(0, 1), atol=1e-5)


@torch.no_grad()
def test_what_is_heard_block_by_block_is_what_a_clip_at_once_is() -> None:
    encoder = AudioEncoder(SOUND, 16)
    shaken(encoder, 0.3)
    features = random(1 + 4 * 9, SOUND.layers, SOUND.dim)
    whole = encoder(features)
    assert whole.tokens.shape == (10, SOUND.tokens + 1, 16)
    for n in range(4, 10, 3):
        part = encoder(features[4 * n - LEAD - 3 : 4 * n + 9])
        assert torch.allclose(part.tokens[-3:], whole.tokens[n : n + 3], atol=1e-5)
        assert torch.allclose(part.whole[-3:], whole.whole[n : n + 3], atol=1e-5)


@torch.no_grad()
def test_a_frame_asks_for_its_own_sound() -> None:
    injector = AudioInjector(TINY, (1,))
    shaken(injector)
    x, heard = random(1, 2, 6, TINY.dim), Heard(random(2, 3, TINY.dim, seed=1), random(2, TINY.dim, seed=2))
    assert injector(0, x, heard) is x
    found = injector(1, x, heard)
    other = injector(1, x, Heard(torch.cat([heard.tokens[:1], heard.tokens[1:] + 1]), heard.whole))
    assert torch.equal(found[:, 0], other[:, 0])
    assert not torch.allclose(found[:, 1], other[:, 1], atol=1e-4)


@torch.no_grad()
def test_the_norm_is_that_of_diffusers() -> None:
    theirs = AdaLayerNorm(TINY.dim, output_dim=2 * TINY.dim, chunk_dim=1)
    ours = AudioInjector(TINY, (0,)).injector_adain_layers[0]
    ours.load_state_dict(theirs.state_dict())
    x, whole = random(1, 2, 6, TINY.dim), random(2, TINY.dim, seed=2)
    assert torch.allclose(ours(x, whole)[0], theirs(x[0], temb=whole), atol=1e-5)
