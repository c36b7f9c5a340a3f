"""Stable Diffusion on a stream: labels, live changes, what is skipped."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from streamfx.core.errors import UsageError
from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.labels import Labels
from streamfx.models.sd.control import Canny, Depth
from streamfx.models.sd.load import TextEncoder
from streamfx.models.sd.network import StableDiffusion, TextEmbedding
from streamfx.models.sd.stream import Look, SdStream, quicker
from tests.unit.models.sdkit import WIDTH, WORDS, controlnet, tiny_vae, unet

pytestmark = pytest.mark.filterwarnings("ignore:.*hf_hub_download:UserWarning")

LOOK = Look("a cat", strength=0.6)


class Words(TextEncoder):
    """Gives each prompt an embedding of its own, without a network."""

    def __init__(self) -> None:
        super().__init__([], "cpu")

    def _embed(self, prompt: str) -> TextEmbedding:
        generator = torch.Generator().manual_seed(sum(map(ord, prompt)))
        return TextEmbedding(torch.randn(WORDS, WIDTH, generator=generator))


def stream(fade: int = 1, control: bool = False) -> SdStream:
    model = StableDiffusion(unet(), tiny_vae(), "cpu", torch.float32, controlnet() if control else None)
    return SdStream(model, Words(), Canny() if control else None, fade)


def picture(n: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(n)) * 2 - 1


def step(subject: SdStream, shown: Tensor, label: float, look: Look) -> tuple[Tensor, float] | None:
    """One picture at a time."""
    given = subject.step(shown[None], [label], look)
    return None if given is None else (given[0][0], given[1][0])


def labels_of(subject: SdStream, count: int, look: Look, first: int = 0) -> list[int | None]:
    """For each picture that goes in, the label of what comes out."""
    out: list[int | None] = []
    for n in range(first, first + count):
        given = step(subject, picture(n), float(n), look)
        out.append(None if given is None else int(given[1]))
    return out


def test_labels_follow_a_lag_that_changes() -> None:
    subject: Labels[int] = Labels()
    out = []
    for n, lag in enumerate([2, 2, 2, 2, 0, 0, 1, 1]):
        subject.push(n)
        out.append(subject.pop(lag))
    assert out == [None, None, 0, 1, 4, 5, None, 6]


@pytest.mark.parametrize("steps", [1, 4])
def test_what_comes_out_is_of_the_picture_it_says(steps: int) -> None:
    look = replace(LOOK, steps=steps)
    subject, alone = stream(), stream()
    assert labels_of(subject, 6, look) == [None] * (steps - 1) + list(range(7 - steps))
    subject.reset()
    for n in range(5):
        given = step(subject, picture(n), float(n), look)
        if given is None:
            continue
        alone.reset()
        single = None
        for _ in range(steps):
            single = step(alone, picture(int(given[1])), given[1], look)
        assert single is not None
        assert torch.allclose(given[0], single[0], atol=1e-5)


@pytest.mark.parametrize("frames", [2, 4])
def test_frames_that_share_a_call(frames: int) -> None:
    look = replace(LOOK, steps=2)
    together, single = stream(), stream()
    for first in range(0, 3 * frames, frames):
        numbers = [float(n) for n in range(first, first + frames)]
        given = together.step(torch.stack([picture(int(n)) for n in numbers]), numbers, look)
        if first == 0:
            assert given is None
            continue
        assert given is not None
        assert given[1] == [n - frames for n in numbers]
        for shown, label in zip(*given, strict=True):
            single.reset()
            expected = [step(single, picture(int(label)), label, look) for _ in range(2)][1]
            assert expected is not None
            assert torch.allclose(shown, expected[0], atol=1e-5)
    assert step(together, picture(0), 99.0, look) is None, "another number of frames begins anew"


def test_steps_change_live() -> None:
    subject = stream()
    assert labels_of(subject, 4, replace(LOOK, steps=1)) == [0, 1, 2, 3]
    assert labels_of(subject, 5, replace(LOOK, steps=3), 4) == [None, None, 4, 5, 6]
    assert labels_of(subject, 3, replace(LOOK, steps=1), 9) == [9, 10, 11]
    little = replace(LOOK, steps=4, strength=0.02)
    assert labels_of(subject, 2, little, 12) == [12, 13], "so small a strength has room for a single step"


def test_a_seed_is_a_look_of_its_own() -> None:
    first, second, again = (step(stream(), picture(1), 0.0, replace(LOOK, seed=seed)) for seed in (1, 2, 1))
    assert first is not None
    assert second is not None
    assert again is not None
    assert torch.equal(first[0], again[0])
    assert not torch.allclose(first[0], second[0], atol=1e-3)


def test_a_new_prompt_comes_in_slowly() -> None:
    subject = stream(fade=4)
    shown = []
    for n in range(10):
        given = step(subject, picture(0), float(n), LOOK if n < 3 else replace(LOOK, prompt="a dog in the rain"))
        assert given is not None
        shown.append(given[0])
    moves = [float((b - a).abs().max()) for a, b in itertools.pairwise(shown)]
    assert all(move == 0 for move in [*moves[:2], *moves[6:]])
    assert all(move > 0 for move in moves[2:6])
    direct = step(stream(), picture(0), 0.0, replace(LOOK, prompt="a dog in the rain"))
    assert direct is not None
    assert torch.allclose(shown[-1], direct[0], atol=1e-5)


def test_prompts_are_blended() -> None:
    ends = [step(stream(), picture(0), 0.0, replace(LOOK, other="a dog", share=share)) for share in (0.0, 0.5, 1.0)]
    looks = [given[0] for given in ends if given is not None]
    only = step(stream(), picture(0), 0.0, replace(LOOK, prompt="a dog"))
    assert only is not None
    assert torch.allclose(looks[2], only[0], atol=1e-5)
    assert not torch.allclose(looks[0], looks[1], atol=1e-4)


def test_what_has_not_changed_may_be_skipped() -> None:
    subject, calls = stream(), 0
    network = subject.model.unet.forward

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        return network(*args, **kwargs)

    subject.model.unet.forward = counted
    look = replace(LOOK, steps=2, threshold=0.98)
    out = [step(subject, picture(0), float(n), look) for n in range(24)]
    assert [given[1] for given in out[1:] if given is not None] == [float(n) for n in range(23)], "none goes missing"
    assert calls <= 6, "at most ten in a row"
    before = calls
    labels_of(subject, 5, look, 100)
    assert calls == before + 5


def test_motion_calms_the_strength() -> None:
    def strength(moving: bool) -> float:
        subject = stream()
        for n in range(5):
            step(subject, picture(n if moving else 0), float(n), replace(LOOK, calm=1.0))
        return subject._noise.strength

    assert strength(False) == pytest.approx(0.6)
    assert strength(True) < 0.1


def test_another_size_and_another_stream() -> None:
    subject = stream()
    look = replace(LOOK, steps=2)
    assert labels_of(subject, 2, look) == [None, 0]
    assert step(subject, picture(5, (64, 128)), 5.0, look) is None
    given = step(subject, picture(6, (64, 128)), 6.0, look)
    assert given is not None
    assert tuple(given[0].shape) == (3, 64, 128)
    assert given[1] == 5.0
    subject.reset()
    assert labels_of(subject, 2, look, 7) == [None, 7]


def test_contours_steer() -> None:
    with pytest.raises(ValueError, match="makes its hints"):
        SdStream(StableDiffusion(unet(), tiny_vae(), "cpu", torch.float32, controlnet()), Words())
    boxed = torch.full((3, 64, 64), -1.0)
    boxed[:, 16:48, 16:48] = 1.0
    edges = Canny()(boxed[None])
    assert tuple(edges.shape) == (1, 3, 64, 64)
    assert 60 < int((edges[0, 0] > 0.5).sum()) < 300
    assert float(edges[0, :, 24:40, 24:40].max()) == 0, "nothing inside the box"
    on, off = (step(stream(control=True), boxed, 0.0, replace(LOOK, control=weight)) for weight in (1.0, 0.0))
    assert on is not None
    assert off is not None
    assert not torch.allclose(on[0], off[0], atol=1e-4)
    plain = step(stream(), boxed, 0.0, LOOK)
    assert plain is not None
    assert torch.allclose(off[0], plain[0], atol=1e-5)


def test_cheaper_ways() -> None:
    look = replace(LOOK, steps=4, guidance=Guidance("full", 3.0))
    assert quicker(look, 0) == look
    assert (quicker(look, 1).steps, quicker(look, 2).steps) == (2, 1)
    assert quicker(look, 1).guidance == Guidance("self", 3.0)
    assert quicker(replace(look, guidance=Guidance("none")), 2).guidance.mode == "none"


def depth_folder(folder: Path) -> str:
    """A depth network of random weights, as the hub has them."""
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    sizes = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "head_hidden_size": 8, "reassemble_hidden_size": 16}
    DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **sizes)).save_pretrained(folder)
    how = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "ensure_multiple_of": 14}
    (folder / "preprocessor_config.json").write_text(json.dumps(how))
    return str(folder)


def test_depths_steer(tmp_path: Path) -> None:
    depth = Depth(depth_folder(tmp_path), "cpu", torch.float32, offline=True)
    seen = depth(torch.stack([picture(1, (64, 96)), picture(2, (64, 96))]))
    assert tuple(seen.shape) == (2, 3, 64, 96)
    assert 0 <= float(seen.min()) < float(seen.max()) <= 1
    assert torch.equal(seen[:, 0], seen[:, 2])
    depth.reset()
    depth(picture(1, (64, 96))[None])
    # The range follows slowly, so that a single picture does not make the others flicker.
    low, high = (float(x) for x in depth._range)  # type: ignore[union-attr]
    depth(torch.ones(1, 3, 64, 96))
    assert depth._range is not None
    assert float(depth._range[1] - depth._range[0]) > 0.5 * (high - low)
    with pytest.raises(UsageError, match="the depth network cannot be loaded"):
        Depth("nobody/no-depths", "cpu", torch.float32, offline=True)
    model = StableDiffusion(unet(), tiny_vae(), "cpu", torch.float32, controlnet())
    assert step(SdStream(model, Words(), depth), picture(0), 0.0, LOOK) is not None
