"""Rolling-window denoising against the same thing written out, block by block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamfx.diffusion.rolling import RollingWindow
from streamfx.diffusion.schedules import Schedule, flow, lcm


class Together:
    """Every frame is drawn towards the mean of the window and of the past."""

    def __init__(self) -> None:
        self.past: list[Tensor] = []
        self.sizes: list[int] = []

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.sizes.append(len(x))
        assert timesteps.tolist() == sorted(timesteps.tolist())  # the oldest frames are the cleanest
        context = torch.cat([*self.past, x]).mean(0)
        return torch.tanh(0.5 * x + 0.3 * context) * (0.5 + timesteps.reshape(-1, 1, 1, 1) / 2000)

    def remember(self, clean: Tensor) -> None:
        self.past.append(clean)

    def forget(self) -> None:
        self.past.clear()


def written_out(schedule: Schedule, sources: list[Tensor], seed: int) -> list[Tensor]:
    """Blocks as (estimate, step) pairs in a list, moved on one by one."""
    model, draw = Together(), torch.Generator().manual_seed(seed)
    window: list[list[object]] = []
    out: list[Tensor] = []
    last = schedule.steps - 1
    for source in [*sources, *[None] * last]:
        if source is not None:
            window.insert(0, [source, 0])
        if not window:
            break
        noise = torch.randn(len(window), *sources[0].shape, generator=draw)
        noisy = [schedule.alpha[s] * x + schedule.sigma[s] * n for (x, s), n in zip(window, noise, strict=True)]  # type: ignore[index]
        frames = torch.cat(noisy[::-1])
        times = torch.cat([schedule.timesteps[s].expand(len(sources[0])) for _, s in window[::-1]])  # type: ignore[index]
        answers = model(frames, times).split(len(sources[0]))[::-1]
        for block, x, answer in zip(window, noisy, answers, strict=True):
            rows = slice(block[1], block[1] + 1)  # type: ignore[operator]
            block[0] = schedule.x0(x[None], answer[None], rows)[0]
            block[1] += 1  # type: ignore[operator]
        if window[-1][1] == schedule.steps:
            finished = window.pop()[0]
            assert isinstance(finished, Tensor)
            model.remember(finished)
            out.append(finished)
    return out


@pytest.mark.parametrize("schedule", [lcm([30]), lcm([22, 32, 45]), flow([700, 500, 400, 200], 8.0)])
@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 1 << 30))
@settings(max_examples=12, deadline=None)
def test_the_same_numbers(schedule: Schedule, blocks: int, frames: int, seed: int) -> None:
    torch.manual_seed(seed)
    sources = [torch.randn(frames, 2, 3, 2) for _ in range(blocks)]
    window = RollingWindow(Together(), schedule, sources[0], seed)
    found = [out for out in map(window.step, sources) if out is not None] + window.drain()
    expected = written_out(schedule, sources, seed)
    assert len(found) == len(expected) == blocks
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(b.abs().max()))
    assert window.in_flight == 0


def test_the_window_is_one_call() -> None:
    model = Together()
    window = RollingWindow(model, lcm([22, 32, 45]), torch.zeros(1))
    for _ in range(6):
        window.step(torch.randn(2, 2, 3, 2))
    assert model.sizes == [2, 4, 6, 6, 6, 6]
    assert window.lag == window.in_flight == 2
    window.reset()
    assert model.past == []
    assert window.step(torch.randn(2, 2, 3, 2)) is None
