"""Parts of the large models as ONNX files, each against the model itself. Small networks: an export takes long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from streamfx.diffusion.kv_cache import AdaptiveSink, CacheSize, LayerCache, Policy, Sink, TempCache
from streamfx.diffusion.rope import Rope3D
from streamfx.diffusion.schedules import flow
from streamfx.diffusion.stream_batch import StreamBatch
from streamfx.engines import Eager, Engine, Part, error_of
from streamfx.engines.export import export
from streamfx.engines.onnxruntime import OnnxRuntime
from streamfx.engines.openvino import OpenVino
from streamfx.models.causal_wan.dit import PATCH, TEXT_TOKENS, TINY, CausalWan
from streamfx.models.causal_wan.parts import EngineWan, denoiser
from streamfx.models.causal_wan.stream import SteppedWan
from streamfx.models.sd.network import StableDiffusion
from streamfx.models.sd.parts import parts
from tests.unit.models import sdkit

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

MOST = 1e-4
SIZES = [(1, 8, 8), (2, 6, 10), (2, 4, 16), (65, 2, 2)]
"""Rows, height and width of latents."""

Make = Callable[[Part, Path], Engine]
BACKENDS = pytest.mark.parametrize("make", [OnnxRuntime, OpenVino])


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def given(part: Part, rows: int, *sides: int) -> list[Tensor]:
    """What the part takes: the first a picture."""
    first, *others = part.example.values()
    tensors = [random(rows, first.shape[1], *sides), *(random(rows, *other.shape[1:]) for other in others)]
    if "timesteps" in part.example:
        tensors[1] = torch.linspace(999, 20, rows)
    return tensors


@pytest.fixture(scope="module")
def restyler() -> dict[str, Part]:
    return parts(sdkit.unet(wide=True), sdkit.tiny_vae())


@pytest.fixture(scope="module")
def unet(restyler: dict[str, Part], tmp_path_factory: pytest.TempPathFactory) -> tuple[Part, Path]:
    return exported(restyler["denoise"], tmp_path_factory)


def exported(part: Part, folders: pytest.TempPathFactory) -> tuple[Part, Path]:
    path = folders.mktemp("parts") / f"{part.name}.onnx"
    export(part, path)
    return part, path


@pytest.mark.parametrize("wide", [False, True])
@torch.inference_mode()
def test_parts_are_what_the_model_calls(wide: bool) -> None:
    network, vae = sdkit.unet(wide), sdkit.tiny_vae()
    pieces = parts(network, vae)
    model = StableDiffusion(network, vae, "cpu", torch.float32)
    kept = {weight.data_ptr() for weight in network.parameters()}
    assert {weight.data_ptr() for weight in pieces["denoise"].module.parameters()} == kept, "no weights of their own"
    for rows, height, width in SIZES:
        sample, timesteps, tokens, *more = given(pieces["denoise"], rows, height, width)
        added = dict(zip(("text_embeds", "time_ids"), more, strict=True)) if wide else None
        wanted = network(sample, timesteps, tokens, added_cond_kwargs=added).sample
        assert error_of(pieces["denoise"].module(sample, timesteps, tokens, *more), [wanted]) < 1e-5
    pictures, latents = random(2, 3, 16, 24), random(2, 4, 2, 3)
    assert error_of(pieces["encode"].module(pictures), [model.encode(pictures)]) == 0
    assert error_of(pieces["decode"].module(latents), [model.decode(latents)]) == 0
    with pytest.raises(ValueError, match="dimension 2 of sample is 5, not 4"):
        pieces["denoise"].check(given(pieces["denoise"], 1, 5, 8))


@pytest.mark.parametrize(("make", "sizes"), [(OnnxRuntime, SIZES), (OpenVino, SIZES[1:2])])
@torch.inference_mode()
def test_the_unet(make: Make, sizes: list[tuple[int, int, int]], unet: tuple[Part, Path]) -> None:
    part, path = unet
    engine = make(part, path)
    for size in sizes:
        tensors = given(part, *size)
        assert error_of(engine(*tensors), part.module(*tensors)) < MOST


@pytest.mark.parametrize(("name", "shrink"), [("encode", 8), ("decode", 1)])
@torch.inference_mode()
def test_the_small_autoencoder(name: str, shrink: int, restyler: dict[str, Part], tmp_path: Path) -> None:
    part, path = restyler[name], tmp_path / "part.onnx"
    with torch.inference_mode(mode=False):
        export(part, path)
    for engine in (OnnxRuntime(part, path), OpenVino(part, path)):
        for rows, height, width in SIZES:
            tensors = given(part, rows, shrink * height, shrink * width)
            assert error_of(engine(*tensors), part.module(*tensors)) < MOST


@pytest.fixture(scope="module")
def model() -> CausalWan:
    torch.manual_seed(0)
    model = CausalWan(TINY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def wan(model: CausalWan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Part, Path]:
    return exported(denoiser(model, (4, 6), slots=4), tmp_path_factory)


def caches(rows: int, slots: tuple[int, int], grid: tuple[int, int], policy: type[Policy] = Sink) -> list[LayerCache]:
    size = CacheSize(rows, *slots, grid[0] * grid[1], TINY.heads, TINY.head_dim)
    return [LayerCache(size, policy()) for _ in range(TINY.layers)]


@BACKENDS
@pytest.mark.parametrize(
    ("rows", "frames", "latent", "slots"),
    [(1, 1, (4, 6), (1, 3)), (2, 1, (8, 4), (1, 1)), (2, 3, (6, 6), (0, 3)), (1, 2, (2, 2), (2, 3))],
)
@torch.inference_mode()
def test_the_transformer_with_its_past(
    make: Make,
    rows: int,
    frames: int,
    latent: tuple[int, int],
    slots: tuple[int, int],
    model: CausalWan,
    wan: tuple[Part, Path],
) -> None:
    """From nothing to a ring that has turned; velocities, and what is remembered."""
    engine = EngineWan(make(*wan), model, TINY)
    grid = latent[0] // PATCH, latent[1] // PATCH
    ours, theirs = caches(rows, slots, grid), caches(rows, slots, grid)
    prompt, rope = model.prepare(random(TEXT_TOKENS, TINY.text_dim)), Rope3D(TINY.head_dim, grid, 16)
    timesteps = torch.linspace(937, 20, rows)
    order = list(reversed(range(rows)))
    for n in range(6):
        x = random(rows, frames, TINY.channels, *latent) * (1 + n)
        found = engine(x, timesteps, prompt, ours, rope, order, remember=True)
        assert error_of([found], [model(x, timesteps, prompt, theirs, rope, order, remember=True)]) < MOST
    for one, other in zip(ours, theirs, strict=True):
        assert error_of([one.keys.data, one.values.data], [other.keys.data, other.values.data]) < MOST
    before = [cache.keys.data.clone() for cache in ours]
    engine(x, timesteps, prompt, ours, rope)
    assert all(torch.equal(cache.keys.data, keys) for cache, keys in zip(ours, before, strict=True))


@torch.inference_mode()
def test_a_rollout_through_an_engine(model: CausalWan, wan: tuple[Part, Path]) -> None:
    """Ten frames through two steps, with a sink, and two frames that pass; the prompt changes on the way."""
    first, second = (model.prepare(random(TEXT_TOKENS, TINY.text_dim) * n) for n in (1, 2))
    schedule, noise = flow([700, 300], shift=8.0), random(2, 1, TINY.channels, 4, 6)
    frames = random(10, 1, TINY.channels, 4, 6)
    rollouts = []
    for through in (model, EngineWan(OnnxRuntime(*wan), model, TINY)):
        stepped = SteppedWan(model, first, (4, 6), most_steps=2, sinks=1, window=2)
        stepped.denoise = through
        batch = StreamBatch(stepped, schedule, noise)
        outputs = []
        for n, frame in enumerate(frames):
            stepped.prompt = first if n < 5 else second
            outputs.append(batch.step(frame))
        rollouts.append([output for output in outputs if output is not None] + batch.drain())
    wanted, found = rollouts
    assert len(found) == 10
    assert error_of(found, wanted) < MOST


@pytest.mark.parametrize("policy", [TempCache, AdaptiveSink])
@torch.inference_mode()
def test_layers_may_remember_by_themselves(policy: type[Policy], model: CausalWan) -> None:
    """Each has counts, or an order in its ring, of its own."""
    part = denoiser(model, (4, 6), slots=4)
    prompt, rope = model.prepare(random(TEXT_TOKENS, TINY.text_dim)), Rope3D(TINY.head_dim, (2, 3), 16)
    ours, theirs = (caches(1, (2, 2), (2, 3), policy) for _ in range(2))
    engine, chance = EngineWan(Eager(part), model, TINY), torch.Generator().manual_seed(0)
    for _ in range(20):
        x, step = torch.randn(1, 1, TINY.channels, 4, 6, generator=chance), torch.tensor([400.0])
        found = engine(x, step, prompt, ours, rope, remember=True)
        assert error_of([found], [model(x, step, prompt, theirs, rope, remember=True)]) < MOST
