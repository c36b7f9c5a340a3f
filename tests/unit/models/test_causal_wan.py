"""Our Wan against diffusers' on the same weights, and against itself without a cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.rolling import RollingWindow
from streamfx.diffusion.rope import Rope3D
from streamfx.diffusion.schedules import flow
from streamfx.diffusion.stream_batch import Call, StreamBatch
from streamfx.models.causal_wan.dit import TEXT_TOKENS, TINY, CausalWan, Prompt
from streamfx.models.causal_wan.keys import to_ours
from streamfx.models.causal_wan.stream import JointWan, SteppedWan

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


@torch.no_grad()
def test_frames_at_different_steps() -> None:
    """A time for each frame ≡ one for all where they agree, and heeded where they do not."""
    model = ours()
    prompt, x = model.prepare(text()), torch.randn(1, 3, TINY.channels, HEIGHT, WIDTH)
    same = model(x, torch.tensor([500.0]), prompt, caches(), rope())
    each = model(x, torch.tensor([[500.0, 500.0, 500.0]]), prompt, caches(), rope())
    assert torch.allclose(same, each, atol=1e-6)
    rising = model(x, torch.tensor([[100.0, 500.0, 900.0]]), prompt, caches(), rope())
    assert not torch.allclose(rising[:, 0], same[:, 0], atol=1e-4)


def stepped(model: CausalWan, steps: int, negative: bool = False) -> SteppedWan:
    """The model as a stream batch drives it."""
    against = model.prepare(text(9)) if negative else None
    size = (HEIGHT, WIDTH)
    return SteppedWan(model, model.prepare(text()), size, most_steps=steps, sinks=1, window=3, negative=against)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@torch.no_grad()
def test_the_stream_batch_is_step_after_step(steps: int) -> None:
    """All steps of consecutive frames in one call ≡ each frame through its steps alone, with a cache a step."""
    model = ours()
    schedule = flow([700, 500, 400, 200][:steps], shift=8.0)
    noise = torch.randn(steps, 1, TINY.channels, HEIGHT, WIDTH)
    latents = torch.randn(9, 1, TINY.channels, HEIGHT, WIDTH)
    batch = StreamBatch(stepped(model, steps), schedule, noise)
    found = [out for out in map(batch.step, latents) if out is not None] + batch.drain()
    alone = stepped(model, steps)
    for latent, output in zip(latents, found, strict=True):
        x0 = latent
        for step in range(steps):
            x = schedule.alpha[step] * x0 + schedule.sigma[step] * noise[step]
            velocity = alone(x[None], schedule.timesteps[step : step + 1], Call((step,), 1))[0]
            x0 = x - schedule.sigma[step] * velocity
        assert torch.allclose(output, x0, atol=1e-4)


@torch.no_grad()
def test_three_hundred_frames_later_nothing_has_drifted() -> None:
    model = ours()
    streamed = stepped(model, 1)
    memory = sum(cache.keys.bytes + cache.values.bytes for cache in streamed.caches)
    latents = torch.randn(20, 1, 1, TINY.channels, HEIGHT, WIDTH)
    first: Tensor | None = None
    for n in range(300):
        out = streamed(latents[n % 20], torch.tensor([400.0]), Call((0,), 1))
        if n == 119:
            first = out
    # The same twenty frames over and over, in a window of three: after every sixty each slot of it is as it was, and so
    # must the output be, bit by bit. (The same frames in other slots are rounded differently by vector instructions.)
    assert first is not None
    assert torch.equal(out, first)
    assert sum(cache.keys.bytes + cache.values.bytes for cache in streamed.caches) == memory


@torch.no_grad()
def test_full_guidance_has_a_past_of_its_own() -> None:
    model, schedule = ours(), flow([600, 300])
    noise = torch.randn(2, 1, TINY.channels, HEIGHT, WIDTH)
    latents = torch.randn(6, 1, TINY.channels, HEIGHT, WIDTH)
    both = stepped(model, 2, negative=True)
    with_prompt, without = stepped(model, 2), stepped(model, 2)
    without.prompt = model.prepare(text(9))
    batch = StreamBatch(both, schedule, noise, Guidance("full", 2.0))
    found = [out for out in map(batch.step, latents) if out is not None]
    for latent, output in zip(latents, found, strict=False):
        x0 = latent
        for step in range(2):
            x = schedule.alpha[step] * x0 + schedule.sigma[step] * noise[step]
            t, call = schedule.timesteps[step : step + 1], Call((step,), 1)
            yes, no = with_prompt(x[None], t, call)[0], without(x[None], t, call)[0]
            x0 = x - schedule.sigma[step] * (no + 2.0 * (yes - no))
        assert torch.allclose(output, x0, atol=1e-4)
    with pytest.raises(ValueError, match="needs a negative prompt"):
        StreamBatch(stepped(model, 2), schedule, noise, Guidance("full")).step(latents[0])


@torch.no_grad()
def test_recaching_is_a_fresh_encoding() -> None:
    """After a switch of the prompt everything is as if the new prompt had been there when the frames came."""
    model = ours()
    size, old, new = (HEIGHT, WIDTH), model.prepare(text()), model.prepare(text(5))
    switched, fresh, kept = (JointWan(model, old, size, sinks=1, window=2) for _ in range(3))
    fresh.prompt = new
    frames = torch.randn(7, TINY.channels, HEIGHT, WIDTH)
    switched.remember(frames)
    kept.remember(frames)
    # What the ring holds: the first frame and the last two.
    fresh.remember(torch.cat([frames[:1], frames[-2:]]))
    switched.set_prompt(new)
    kept.set_prompt(new, recache=False)
    x, t = torch.randn(2, TINY.channels, HEIGHT, WIDTH), torch.tensor([300.0, 800.0])
    assert torch.allclose(switched(x, t), fresh(x, t), atol=1e-5)
    assert not torch.allclose(kept(x, t), fresh(x, t), atol=1e-4)


@torch.no_grad()
def test_the_rolling_window_runs_on_it() -> None:
    model = ours()
    joint = JointWan(model, model.prepare(text()), (HEIGHT, WIDTH), sinks=1, window=2)
    schedule = flow([900, 600, 300])
    window = RollingWindow(joint, schedule, torch.zeros(1))
    outputs = [window.step(torch.randn(1, TINY.channels, HEIGHT, WIDTH)) for _ in range(8)]
    finished = [out for out in outputs if out is not None]
    assert len(finished) == 6
    assert all(torch.isfinite(out).all() for out in finished)
    assert joint.caches[0].past().here == 3
    window.reset()
    assert joint.caches[0].past().here == 0


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
