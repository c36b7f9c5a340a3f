"""The stream batch against frames that are denoised one by one, step after step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.schedules import Schedule, flow, lcm
from streamfx.diffusion.stream_batch import Call, StreamBatch

SCHEDULES = {
    "lcm": [lcm([25]), lcm([32, 45]), lcm([22, 32, 45]), lcm([18, 26, 35, 45])],
    "flow": [flow([800]), flow([700, 400]), flow([900, 600, 300]), flow([700, 500, 400, 200], 8.0)],
}
MODES = ["none", "full", "self", "onetime"]


class Toy:
    """A small nonlinear model whose rows know nothing of each other. Counts the rows it was asked for."""

    def __init__(self, channels: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(channels, channels, generator=generator) * 0.4
        self.prompt = torch.randn(channels, 1, 1, generator=generator)
        self.rows: list[int] = []

    def one(self, x: Tensor, timestep: Tensor, conditional: bool) -> Tensor:
        """``(F, C, H, W)``."""
        mixed = torch.einsum("cd,fdhw->fchw", self.weight, x) + (self.prompt if conditional else 0.0)
        return torch.tanh(mixed) + 0.1 * x * (timestep.float() / 1000)

    def __call__(self, x: Tensor, timesteps: Tensor, call: Call) -> Tensor:
        self.rows.append(len(x))
        assert len(x) == call.unconditional + len(call.steps)
        assert x.shape[1] == call.frames
        return torch.stack(
            [self.one(row, t, n >= call.unconditional) for n, (row, t) in enumerate(zip(x, timesteps, strict=True))]
        )


def one_by_one(model: Toy, schedule: Schedule, noise: Tensor, guidance: Guidance, source: Tensor) -> Tensor:
    """Everything that StreamDiffusion's algorithm says for a single frame, written out."""
    x0, residual = source, noise[0]
    g, delta = guidance.scale, guidance.delta
    for i in range(schedule.steps):
        a, s, t = schedule.alpha[i], schedule.sigma[i], schedule.timesteps[i]
        skip, out = schedule.c_skip[i], schedule.c_out[i]

        def as_noise(x: Tensor, prediction: Tensor, a: Tensor = a) -> Tensor:
            return prediction if schedule.kind == "epsilon" else x + a * prediction

        def clean(
            x: Tensor, eps: Tensor, a: Tensor = a, s: Tensor = s, skip: Tensor = skip, out: Tensor = out
        ) -> Tensor:
            if schedule.kind == "flow":  # eps = x + a v, x0 = x - s v
                return x - s * (eps - x) / a
            return out * (x - s * eps) / a + skip * x

        x = a * x0 + s * noise[i]
        conditional = as_noise(x, model.one(x, t, True))
        if guidance.mode == "none":
            eps = conditional
        elif guidance.mode == "full":
            negative = as_noise(x, model.one(x, t, False))
            eps = negative + g * (conditional - negative)
        else:
            if guidance.mode == "onetime" and i == 0:
                residual = as_noise(x, model.one(x, t, False))
            eps = delta * residual + g * (conditional - delta * residual)
        x0 = clean(x, eps)
        if i + 1 < schedule.steps:
            moved = clean(s * residual, eps)
            residual = noise[i + 1] + schedule.alpha[i + 1] * moved / schedule.sigma[i + 1]
    return x0


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=2e-4, atol=2e-4 * float(b.abs().max()))


@pytest.mark.parametrize("kind", ["lcm", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", MODES)
@given(seed=st.integers(0, 1 << 30), frames=st.integers(1, 3), channels=st.integers(1, 4))
@settings(max_examples=5, deadline=None)
def test_the_same_numbers_as_one_by_one(
    kind: str, steps: int, mode: str, seed: int, frames: int, channels: int
) -> None:
    torch.manual_seed(seed)
    schedule = SCHEDULES[kind][steps - 1]
    noise = torch.randn(4, frames, channels, 3, 2)
    sources = [torch.randn(frames, channels, 3, 2) for _ in range(7)]
    guidance = Guidance(mode, 1.4, 0.7)  # type: ignore[arg-type]
    model = Toy(channels, seed)
    batch = StreamBatch(model, schedule, noise, guidance)
    outputs = [batch.step(source) for source in sources]
    assert outputs[: steps - 1] == [None] * (steps - 1)
    assert batch.lag == batch.in_flight == steps - 1
    finished = [output for output in outputs if output is not None] + batch.drain()
    assert len(finished) == len(sources)
    for source, output in zip(sources, finished, strict=True):
        assert close(output, one_by_one(model, schedule, noise, guidance, source))
    assert batch.in_flight == 0


def test_the_rows_that_guidance_costs() -> None:
    expected = {"none": 4, "self": 4, "onetime": 5, "full": 8}
    for mode, rows in expected.items():
        model = Toy(2)
        batch = StreamBatch(model, SCHEDULES["lcm"][3], torch.randn(4, 1, 2, 2, 2), Guidance(mode))  # type: ignore[arg-type]
        for _ in range(6):
            batch.step(torch.randn(1, 2, 2, 2))
        assert model.rows[-1] == rows


def test_onetime_guidance_of_a_linear_model() -> None:
    """One step, eps = W x (+ p with the prompt): onetime-negative is full guidance then, in closed form."""
    torch.manual_seed(1)
    weight, prompt, g = torch.randn(3, 3), torch.randn(3, 1, 1), 2.5

    def linear(x: Tensor, timesteps: Tensor, call: Call) -> Tensor:
        eps = torch.einsum("cd,rfdhw->rfchw", weight, x)
        eps[call.unconditional :] += prompt
        return eps

    schedule, noise, source = lcm([20]), torch.randn(1, 1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    found = StreamBatch(linear, schedule, noise, Guidance("onetime", g, 1.0)).step(source)
    x = schedule.alpha[0] * source + schedule.sigma[0] * noise[0]
    eps = torch.einsum("cd,fdhw->fchw", weight, x) + g * prompt
    closed = schedule.c_out[0] * (x - schedule.sigma[0] * eps) / schedule.alpha[0] + schedule.c_skip[0] * x
    assert found is not None
    assert torch.allclose(found, closed, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=12), st.integers(0, 1 << 30))
@settings(max_examples=25, deadline=None)
def test_steps_change_while_it_runs(mode: str, steps: list[int], seed: int) -> None:
    """Whatever the number of steps does: frames come out in order, none twice, and the lag is as stated."""
    torch.manual_seed(seed)

    def tracing(x: Tensor, timesteps: Tensor, call: Call) -> Tensor:
        return torch.zeros_like(x)

    batch = StreamBatch(tracing, SCHEDULES["lcm"][0], torch.zeros(4, 1, 1, 1, 1), Guidance(mode))  # type: ignore[arg-type]
    seen: list[float] = []
    number = 0
    for count in steps:
        batch.set_schedule(SCHEDULES["lcm"][count - 1])
        assert batch.lag == count - 1
        for _ in range(5):
            number += 1
            output = batch.step(torch.full((1, 1, 1, 1), float(number)))
            if output is not None:
                seen.append(float(output))
        assert batch.in_flight == count - 1
    # With no noise and a model that predicts none, the numbers survive but for the consistency boundary's scale.
    if mode == "none":
        assert seen == sorted(seen)
        assert len(seen) >= number - 3 * len(steps)


def test_guidance_changes_while_it_runs() -> None:
    torch.manual_seed(0)
    batch = StreamBatch(Toy(2), SCHEDULES["lcm"][2], torch.randn(3, 1, 2, 2, 2))
    for mode in ("none", "self", "full", "onetime", "none", "onetime", "self"):
        batch.guidance = Guidance(mode, 1.3, 0.8)  # type: ignore[arg-type]
        for _ in range(4):
            output = batch.step(torch.randn(1, 2, 2, 2))
        assert output is not None
        assert torch.isfinite(output).all()


def test_a_reset_forgets() -> None:
    torch.manual_seed(0)
    noise = torch.randn(3, 1, 2, 2, 2)
    first, second = (StreamBatch(Toy(2), SCHEDULES["lcm"][2], noise, Guidance("self")) for _ in range(2))
    for _ in range(5):
        first.step(torch.randn(1, 2, 2, 2))
    first.reset()
    for n in range(5):
        source = torch.full((1, 2, 2, 2), float(n))
        a, b = first.step(source), second.step(source)
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.equal(a, b)


def test_noise_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="must be"):
        StreamBatch(Toy(2), SCHEDULES["lcm"][3], torch.randn(2, 1, 2, 2, 2))
    batch = StreamBatch(Toy(2), SCHEDULES["lcm"][0], torch.randn(2, 1, 2, 2, 2))
    with pytest.raises(ValueError, match="more than the 2"):
        batch.set_schedule(SCHEDULES["lcm"][3])
    assert batch.drain() == []
    assert batch.step(None) is None
