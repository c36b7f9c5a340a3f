"""The restyler's transformer with its past as inputs and outputs, as engines run it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from streamfx.diffusion.kv_cache import CacheSize, LayerCache, Sink, TempCache
from streamfx.diffusion.rope import Rope3D, space_turns
from streamfx.engines import Eager, error_of
from streamfx.models.tiny.dit import TinyDiT
from streamfx.models.tiny.parts import Denoises, EngineDenoiser, Frame, denoiser
from streamfx.models.tiny.stream import Direct
from tests.unit.models.test_tiny import GRID, SIZE, dit, latents

ROWS = (0, 2)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (7, 4)])
def test_turns_of_a_grid_are_those_of_the_rope(grid: tuple[int, int]) -> None:
    rope = Rope3D(48, grid, 4)
    assert torch.allclose(space_turns(grid, 48), rope.turns, atol=1e-6)


def played(denoise: Denoises, model: TinyDiT, weight: float, policy: Callable[[], Sink]) -> list[Tensor]:
    """Nine frames of two rows, which is more than the ring holds."""
    size = CacheSize(3, 1, 2, GRID[0] * GRID[1], SIZE.heads, SIZE.head_dim)
    caches = [LayerCache(size, policy()) for _ in range(SIZE.layers)]
    rope, style = Rope3D(SIZE.head_dim, GRID, size.slots + 1), model.style(named=torch.tensor([1, 3]))
    sigma, share = torch.tensor([0.9, 0.4]), torch.tensor([1.0, 0.3])
    return [
        denoise(Frame(latents(2, 1, n), sigma, latents(2, 1, n + 50), style, share, caches, ROWS, rope, weight))
        for n in range(9)
    ]


@pytest.mark.parametrize("policy", [Sink, TempCache])
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
@torch.inference_mode()
def test_a_rollout_by_an_engine_is_that_of_the_model(weight: float, policy: Callable[[], Sink]) -> None:
    model = dit()
    direct = Direct(model)
    by_engine = EngineDenoiser(Eager(denoiser(model)), direct)
    wanted, found = (played(one, model, weight, policy) for one in (direct, by_engine))
    assert all(error_of([a], [b]) < 1e-5 for a, b in zip(found, wanted, strict=True))


@torch.inference_mode()
def test_they_may_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine is not ready for is done without it, and both keep the same past."""
    model = dit()
    direct, engine = Direct(model), Eager(denoiser(model))
    calls: list[int] = []

    def every_other(*given: Tensor) -> bool:
        calls.append(len(given))
        return len(calls) % 2 == 0

    monkeypatch.setattr(engine, "takes", every_other)
    wanted, found = (played(one, model, 1.0, Sink) for one in (direct, EngineDenoiser(engine, direct)))
    assert len(calls) == 9
    assert all(error_of([a], [b]) < 1e-5 for a, b in zip(found, wanted, strict=True))
