"""Our Wan against diffusers' on the same weights, and against itself without a cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx.diffusion.schedules import flow
from streamfx.diffusion.stream_batch import Call, StreamBatch
from streamfx.models.causal_wan.dit import TEXT_TOKENS, TINY, CausalWan, Prompt
from streamfx.models.causal_wan.keys import to_ours

HEIGHT, WIDTH = 4, 6
GRID = (HEIGHT // 2, WIDTH // 2)


def ours(seed: int = 0) -> CausalWan:
    torch.manual_seed(seed)
    model = CausalWan(TINY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def caches(rows: int = 1, sinks: int = 1, window: int = 3) -> list[LayerCache]:
    size = CacheSize(rows, sinks, window, GRID[0] * GRID[1], TINY.heads, TINY.head_dim)
    return [LayerCache(size) for _ in range(TINY.layers)]


def text(seed: int = 1) -> Tensor:
    padded = torch.zeros(TEXT_TOKENS, TINY.text_dim)
    padded[:7] = torch.randn(7, TINY.text_dim, generator=torch.Generator().manual_seed(seed))
    return padded


def rope(frames: int = 16) -> Rope3D:
    return Rope3D(TINY.head_dim, GRID, frames)


@pytest.mark.parametrize("frames", [1, 3])
@torch.no_grad()
def test_a_single_block_is_that_of_diffusers(frames: int) -> None:
    import diffusers

    torch.manual_seed(0)
    theirs = diffusers.WanTransformer3DModel(
        num_attention_heads=TINY.heads,
        attention_head_dim=TINY.head_dim,
        in_channels=TINY.channels,
        out_channels=TINY.channels,
        text_dim=TINY.text_dim,
        freq_dim=TINY.time_dim,
        ffn_dim=TINY.hidden,
        num_layers=TINY.layers,
    ).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    model = CausalWan(TINY).eval()
    model.load_state_dict(to_ours(theirs.state_dict()))
    x, timesteps = torch.randn(2, TINY.channels, frames, HEIGHT, WIDTH), torch.tensor([937.0, 412.0])
    expected = theirs(x, timesteps, text()[None].expand(2, -1, -1), return_dict=False)[0]
    found = model(x.transpose(1, 2), timesteps, model.prepare(text()), caches(2), rope())
    assert torch.allclose(found.transpose(1, 2), expected, atol=1e-4)


def whole(model: CausalWan, latents: Tensor, timestep: float, prompt: Prompt) -> list[Tensor]:
    """Every frame from scratch: all frames before it are put into fresh caches first."""
    out = []
    for n in range(len(latents)):
        fresh = caches(window=16)
        for m in range(n):
            model(latents[None, m : m + 1], torch.tensor([timestep]), prompt, fresh, rope(32), remember=True)
        out.append(model(latents[None, n : n + 1], torch.tensor([timestep]), prompt, fresh, rope(32))[0])
    return out


@torch.no_grad()
def test_a_cached_rollout_is_a_full_recomputation() -> None:
    model = ours()
    prompt, latents = model.prepare(text()), torch.randn(5, TINY.channels, HEIGHT, WIDTH)
    kept = caches(window=16)
    for n, expected in enumerate(whole(model, latents, 300.0, prompt)):
        found = model(latents[None, n : n + 1], torch.tensor([300.0]), prompt, kept, rope(32), remember=True)[0]
        assert torch.allclose(found, expected, atol=1e-5)


@torch.no_grad()
def test_the_past_and_the_prompt_matter() -> None:
    model = ours()
    x, t = torch.randn(1, 1, TINY.channels, HEIGHT, WIDTH), torch.tensor([500.0])
    kept = caches()
    alone = model(x, t, model.prepare(text()), kept, rope())
    other = model(x, t, model.prepare(text(2)), kept, rope())
    assert not torch.allclose(alone, other, atol=1e-4)
    model(torch.randn_like(x), t, model.prepare(text()), kept, rope(), remember=True)
    assert not torch.allclose(alone, model(x, t, model.prepare(text()), kept, rope()), atol=1e-4)


class Streamed:
    """The model as a stream batch drives it: each step has a cache row of its own."""

    def __init__(self, model: CausalWan, rows: int) -> None:
        self.model = model
        self.prompt = model.prepare(text())
        self.caches = caches(rows)

    def __call__(self, x: Tensor, timesteps: Tensor, call: Call) -> Tensor:
        found: Tensor = self.model(x, timesteps, self.prompt, self.caches, rope(), rows=call.steps, remember=True)
        return found


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@torch.no_grad()
def test_the_stream_batch_is_step_after_step(steps: int) -> None:
    """All steps of consecutive frames in one call ≡ each frame through its steps alone, with a cache a step."""
    model = ours()
    schedule = flow([700, 500, 400, 200][:steps], shift=8.0)
    noise = torch.randn(steps, 1, TINY.channels, HEIGHT, WIDTH)
    latents = torch.randn(9, 1, TINY.channels, HEIGHT, WIDTH)
    batch = StreamBatch(Streamed(model, steps), schedule, noise)
    found = [out for out in map(batch.step, latents) if out is not None] + batch.drain()
    alone = Streamed(model, steps)
    for latent, output in zip(latents, found, strict=True):
        x0 = latent
        for step in range(steps):
            x = schedule.alpha[step] * x0 + schedule.sigma[step] * noise[step]
            velocity = alone(x[None], schedule.timesteps[step : step + 1], Call((step,), 1))[0]
            x0 = x - schedule.sigma[step] * velocity
        assert torch.allclose(output, x0, atol=1e-4)


@torch.no_grad()
def test_ten_thousand_frames_stay_finite_and_small() -> None:
    model = ours()
    streamed = Streamed(model, 1)
    memory = sum(cache.keys.bytes + cache.values.bytes for cache in streamed.caches)
    latents = torch.randn(20, 1, 1, TINY.channels, HEIGHT, WIDTH)
    first: Tensor | None = None
    for n in range(1000):
        out = streamed(latents[n % 20], torch.tensor([400.0]), Call((0,), 1))
        if n == 99:
            first = out
    # The same twenty frames over and over: what the window holds repeats, and so must the output, bit by bit.
    assert first is not None
    assert torch.equal(out, first)
    assert sum(cache.keys.bytes + cache.values.bytes for cache in streamed.caches) == memory


WRAPPINGS = {
    "original": lambda weights: weights,
    "self-forcing": lambda weights: {"generator": {}, "generator_ema": {f"model.{k}": v for k, v in weights.items()}},
    "causvid": lambda weights: {"generator": {f"model.{k}": v for k, v in weights.items()}, "step": 3000},
    "fsdp": lambda weights: {"generator": {f"model._fsdp_wrapped_module.{k}": v for k, v in weights.items()}},
    "compiled": lambda weights: {"model": {f"_orig_mod.{k}": v for k, v in weights.items()}},
    "krea": lambda weights: {f"model.{k}": v for k, v in weights.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_checkpoints_of_all_kinds_load(wrapping: str) -> None:
    weights = ours().state_dict()
    fresh = CausalWan(TINY)
    fresh.load_state_dict(to_ours(WRAPPINGS[wrapping](weights)))
    assert all(torch.equal(value, weights[name]) for name, value in fresh.state_dict().items())


def test_a_checkpoint_without_weights() -> None:
    with pytest.raises(UsageError, match="holds no weights"):
        to_ours({"generator": {}, "step": 1})
