"""The similarity filter and the noise controller."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from streamfx.diffusion.noise import NoiseController, motion
from streamfx.diffusion.similarity import SimilarityFilter, thumbnail


def scene(seed: int, side: int = 64) -> torch.Tensor:
    coarse = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse[None], (side, side), mode="bilinear")[0]


def test_a_still_picture_is_skipped_ten_times_in_a_row() -> None:
    judge = SimilarityFilter()
    verdicts = [judge.judge(scene(1)) for _ in range(34)]
    assert verdicts == (["process"] + ["skip"] * 10) * 3 + ["process"]


def test_moving_pictures_are_all_processed() -> None:
    judge = SimilarityFilter()
    wide = scene(2, 256)
    verdicts = {judge.judge(torch.roll(wide, 40 * n, dims=2)[:, :, :128]) for n in range(20)}
    assert "skip" not in verdicts


def test_likeness_decides_by_chance() -> None:
    judge = SimilarityFilter(threshold=0.5, seed=3)
    base, noise = scene(3), torch.randn(3, 64, 64) * 0.25
    skips = [judge.judge(base + noise * (n % 2)) for n in range(400)].count("skip")
    assert 100 < skips < 380


def test_a_cut_is_seen() -> None:
    judge = SimilarityFilter()
    assert judge.judge(scene(4)) == "process"
    assert judge.judge(scene(5)) == "cut"
    assert judge.judge(scene(5)) == "skip"
    judge.reset()
    assert judge.judge(scene(4)) == "process"


def test_a_light_that_is_switched_on_is_no_cut() -> None:
    judge = SimilarityFilter()
    judge.judge(scene(6) * 0.4)
    assert judge.judge(scene(6)) != "cut"


def test_sizes_and_dtypes() -> None:
    judge = SimilarityFilter()
    assert judge.judge((scene(7) * 255).to(torch.uint8)) == "process"
    assert judge.judge(scene(7, 48)[:, :30]) == "process"  # another size: nothing to compare with
    assert tuple(thumbnail(torch.zeros(3, 20, 900)).shape) == (3, 20, 900)
    assert tuple(thumbnail(torch.zeros(3, 720, 1280)).shape) == (3, 32, 57)


def test_motion_lowers_the_strength() -> None:
    still, fast = torch.zeros(4, 3, 8, 8), torch.rand(4, 3, 8, 8) * 2 - 1
    controller = NoiseController(0.8, 0.7)
    assert controller.update(still) == pytest.approx(0.8)
    assert controller.update(fast) == pytest.approx(0.9 * 0.7 + 0.1 * 0.8)
    assert controller.first_timestep == pytest.approx(1000 * 0.71 - 100)
    for _ in range(20):
        controller.update(still)
    assert controller.strength == pytest.approx(0.8)


def test_the_seam_between_chunks_counts() -> None:
    controller = NoiseController(0.8, 0.7, follow=1.0)
    controller.update(torch.zeros(2, 3, 4, 4))
    assert controller.update(torch.full((2, 3, 4, 4), 0.1)) == pytest.approx(0.75)
    controller.reset()
    assert controller.update(torch.full((1, 3, 4, 4), 0.9)) == pytest.approx(0.8)


@given(st.floats(0, 2))
def test_motion_is_a_share(step: float) -> None:
    frames = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), step)])
    assert motion(frames) == pytest.approx(min(1.0, step / 0.2), abs=1e-5)


@pytest.mark.parametrize("bad", [{"most": 0.5, "least": 0.6}, {"least": 0.0}, {"follow": 0.0}, {"most": 1.2}])
def test_strengths_that_make_no_sense(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        NoiseController(**bad)
