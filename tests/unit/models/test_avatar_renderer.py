"""The embedded avatar's renderer, untrained and tiny, and what comes with the package where it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from streamfx.core.errors import FilterError
from streamfx.models.avatar import renderer_load
from streamfx.models.avatar.character import Character
from streamfx.models.avatar.coefficients import COEFFICIENTS
from streamfx.models.avatar.drawing import Painter
from streamfx.models.avatar.renderer import Renderer, RendererSize
from streamfx.models.avatar.renderer_motion import motion, places
from streamfx.models.avatar.renderer_shape import SHAPE, plain
from streamfx.models.avatar.renderer_stream import SINKS, WINDOW, PortraitStream
from streamfx.models.tiny import load as tiny
from streamfx.models.tiny.autoencoder import AutoencoderSize
from streamfx.models.tiny.dit import TinySize

SIZE = RendererSize(TinySize(dim=32, heads=2, layers=2, channels=4), AutoencoderSize(4, (8, 12, 16), style=32))
SIDE = 64
SHIPPED = (renderer_load.WEIGHTS / renderer_load.FILE).exists()


@pytest.fixture(scope="module")
def networks() -> Renderer:
    torch.manual_seed(0)
    model = Renderer(SIZE).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def portrait(seed: int = 0, side: int = SIDE) -> Tensor:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def pose(**named: float) -> np.ndarray:
    row = np.zeros(len(COEFFICIENTS), np.float32)
    for name, value in named.items():
        row[COEFFICIENTS.index(name)] = value
    return row


def speech(count: int) -> list[np.ndarray]:
    return [pose(jaw_open=0.5 + 0.5 * np.sin(n), yaw=0.2 * np.sin(n / 9)) for n in range(count)]


def test_a_picture_for_each_pose(networks: Renderer) -> None:
    stream = PortraitStream(networks, portrait())
    pictures = [stream.draw(row) for row in speech(4)]
    assert all(picture.shape == (SIDE, SIDE, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1])


def test_the_same_for_a_seed_and_after_a_reset(networks: Renderer) -> None:
    stream, other = (PortraitStream(networks, portrait()) for _ in range(2))
    rows = speech(5)
    found = [stream.draw(row, seed=3) for row in rows]
    assert np.array_equal(found, [other.draw(row, seed=3) for row in rows])
    assert not np.array_equal(found[-1], stream.draw(rows[-1], seed=4)), "the noise and the past count"
    stream.reset()
    assert np.array_equal(found, [stream.draw(row, seed=3) for row in rows])


def test_cost_and_memory_stay_the_same(networks: Renderer) -> None:
    stream = PortraitStream(networks, portrait(side=16))
    held = [(cache.keys.data.data_ptr(), cache.keys.data.numel()) for cache in stream._caches]
    for row in speech(120):
        stream.draw(row)
        assert len(stream._caches[0].past().keys) <= SINKS + WINDOW
    assert [(cache.keys.data.data_ptr(), cache.keys.data.numel()) for cache in stream._caches] == held


def test_the_portrait_stays_in_the_past(networks: Renderer) -> None:
    stream = PortraitStream(networks, portrait())
    sink = stream._caches[1].past().keys[0].clone()
    for row in speech(8):
        stream.draw(row)
    past = stream._caches[1].past()
    assert torch.equal(past.keys[0], sink)
    assert past.positions[0] == 0
    assert past.here == SINKS + WINDOW, "right before the window, however long it goes on"
    without = PortraitStream(networks, portrait(), sinks=0)
    assert len(without._caches[0].past().keys) == 0


def test_another_portrait(networks: Renderer) -> None:
    stream, other = PortraitStream(networks, portrait()), PortraitStream(networks, portrait(1))
    stream.draw(pose(jaw_open=1))
    stream.change(portrait(1))
    assert np.array_equal(stream.draw(pose(jaw_open=0.3)), other.draw(pose(jaw_open=0.3)))
    stream.change(portrait(2, 2 * SIDE))
    assert stream.draw(pose()).shape == (2 * SIDE, 2 * SIDE, 3)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 64, 48), (3, 72, 72), (64, 64)])
def test_what_is_no_portrait(networks: Renderer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="reference must"):
        PortraitStream(networks, torch.zeros(shape))


def test_what_is_no_pose(networks: Renderer) -> None:
    stream = PortraitStream(networks, portrait())
    with pytest.raises(ValueError, match="shape"):
        stream.draw(np.zeros(16))
    with pytest.raises(ValueError, match="finite"):
        stream.draw(np.full(17, np.nan))


def test_a_plain_head_moves_as_drawn_heads_do() -> None:
    """At rest nothing moves; otherwise a moved portrait is nearer to the drawn pose than the portrait is."""
    rest = motion(torch.zeros(1, 17), plain(torch.zeros(1)), 16)
    assert float(rest.came.abs().max()) < 1e-3
    who = Character.of(1)
    painter, shape = Painter(who, 128), torch.tensor([[getattr(who, name) for name in SHAPE]])
    still = torch.from_numpy(painter.draw(pose())).movedim(-1, 0)[None].float()
    for name, value in (("yaw", 0.5), ("pitch", -0.5), ("roll", 0.5)):
        row = pose(**{name: value})
        drawn = torch.from_numpy(painter.draw(row)).movedim(-1, 0)[None].float()
        came = motion(torch.from_numpy(row)[None], shape, 32).came
        moved = torch.nn.functional.grid_sample(still, places(128, 128, still) + came, align_corners=False)
        assert float((moved - drawn).abs().mean()) < 0.6 * float((still - drawn).abs().mean()), name


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match=r"renderer.safetensors is not in the package"):
        renderer_load.renderer(folder=tmp_path)
    save_file({"pose.0.weight": torch.zeros(2)}, tmp_path / renderer_load.FILE)
    with pytest.raises(FilterError, match=r"renderer.safetensors is not what"):
        renderer_load.renderer(folder=tmp_path)
    (tmp_path / renderer_load.FILE).write_bytes(b"nothing")
    with pytest.raises(FilterError, match=r"renderer.safetensors is not what"):
        renderer_load.renderer(folder=tmp_path)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Renderer()
    codes = load_file(tiny.WEIGHTS / "autoencoder.safetensors")
    model.codes.load_state_dict({name: value.float() for name, value in codes.items()})
    own = {k: v.half() for k, v in model.state_dict().items() if not k.startswith(renderer_load.SHARED)}
    save_file(own, tmp_path / renderer_load.FILE)
    assert (tmp_path / renderer_load.FILE).stat().st_size < 20e6
    loaded = renderer_load.renderer(folder=tmp_path).state_dict()
    assert all(torch.allclose(value, loaded[name], atol=1e-3) for name, value in model.state_dict().items())


@pytest.mark.skipif(not SHIPPED, reason="the renderer's weights are not in the package")
def test_an_open_jaw_opens_the_mouth() -> None:
    painter = Painter(Character.of(100_003), 256)
    reference = torch.from_numpy(painter.draw(pose())).movedim(-1, 0).float() / 127.5 - 1
    stream = PortraitStream(renderer_load.renderer(), reference)
    box = slice(148, 190), slice(104, 152)
    shut, opened = (stream.draw(pose(jaw_open=jaw))[box].astype(int) for jaw in (0.0, 0.9))
    truth = np.abs(painter.draw(pose(jaw_open=0.9))[box].astype(int) - painter.draw(pose())[box]).mean()
    assert np.abs(opened - shut).mean() > 0.6 * truth
