"""Streams through both autoencoders against whole clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.models.causal_wan.vae import LightNetwork, LightVae, StreamingWanVae, VideoVae, load_light_vae

HEIGHT, WIDTH = 32, 48
CHANNELS = 4
MEAN, STD = [0.3, -0.5, 0.1, 0.9], [1.5, 0.7, 2.0, 1.1]

VERSIONS: dict[str, dict[str, Any]] = {
    "2.1": {"dim_mult": [1, 1, 1, 1]},
    "2.2": {"dim_mult": [1, 1, 1, 1], "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12},
}


def wan(version: str = "2.1") -> AutoencoderKLWan:
    torch.manual_seed(0)
    more = VERSIONS[version]
    return AutoencoderKLWan(
        base_dim=8, z_dim=CHANNELS, num_res_blocks=1, latents_mean=MEAN, latents_std=STD, **more
    ).eval()


def network(seed: int = 0) -> LightNetwork:
    torch.manual_seed(seed)
    return LightNetwork(CHANNELS, 8, (16, 8, 8, 8)).eval()


def clip(frames: int, seed: int = 1) -> Tensor:
    return torch.rand(frames, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]


@torch.no_grad()
def encoded(model: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """A whole clip by diffusers, as its pipelines do it."""
    mode = model.encode(frames.transpose(0, 1)[None]).latent_dist.mode()[0].transpose(0, 1)
    return (mode - per_channel(MEAN)) / per_channel(STD)


@torch.no_grad()
def decoded(model: AutoencoderKLWan, latents: Tensor) -> Tensor:
    raw = latents * per_channel(STD) + per_channel(MEAN)
    out: Tensor = model.decode(raw.transpose(0, 1)[None]).sample
    return out[0].transpose(0, 1)


def streamed(vae: VideoVae, frames: Tensor, cut: list[int]) -> Tensor:
    return torch.cat([vae.encode(chunk) for chunk in frames.split(cut)])


def shown(vae: VideoVae, latents: Tensor, cut: list[int]) -> Tensor:
    return torch.cat([vae.decode(chunk) for chunk in latents.split(cut)])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cut", [[1], [1, 4, 4, 4], [5, 8], [13]])
def test_a_stream_is_the_clip_of_diffusers(version: str, cut: list[int]) -> None:
    model = wan(version)
    vae, frames = StreamingWanVae(model), clip(sum(cut))
    latents = streamed(vae, frames, cut)
    shrink = 16 if version == "2.2" else 8
    assert (vae.channels, vae.shrink, vae.time_shrink, vae.lag) == (CHANNELS, shrink, 4, 0)
    assert tuple(latents.shape) == (1 + (sum(cut) - 1) // 4, CHANNELS, HEIGHT // shrink, WIDTH // shrink)
    assert torch.allclose(latents, encoded(model, frames), atol=1e-5)
    pictures = shown(vae, latents, [1 + (cut[0] - 1) // 4, *(count // 4 for count in cut[1:])])
    assert pictures.shape == frames.shape
    assert torch.allclose(pictures, decoded(model, latents), atol=1e-5)
    assert float(pictures.std()) > 0.01


def test_streams_on_one_network_do_not_meet() -> None:
    """Nor do coding and decoding, nor diffusers' own calls in between; and a reset is a new stream."""
    model = wan()
    one, other = StreamingWanVae(model), StreamingWanVae(model)
    first, second = clip(9), clip(9, seed=2)
    latents: list[list[Tensor]] = [[], []]
    pictures: list[list[Tensor]] = [[], []]
    for a, b in zip(first.split([1, 4, 4]), second.split([1, 4, 4]), strict=True):
        for n, (vae, chunk) in enumerate(((one, a), (other, b))):
            latents[n].append(vae.encode(chunk))
            pictures[n].append(vae.decode(latents[n][-1]))
        encoded(model, clip(5, seed=3))
    for n, frames in enumerate((first, second)):
        assert torch.allclose(torch.cat(latents[n]), encoded(model, frames), atol=1e-5)
        assert torch.allclose(torch.cat(pictures[n]), decoded(model, torch.cat(latents[n])), atol=1e-5)
    one.reset()
    assert torch.allclose(one.encode(second[:5]), encoded(model, second[:5]), atol=1e-5)
    assert len(one.decode(latents[0][0])) == 1


def test_a_steady_stream_is_the_clip_from_its_fourth_frame_on() -> None:
    model = wan()
    vae, frames = StreamingWanVae(model, steady=True), clip(12)
    latents = [vae.encode(chunk) for chunk in frames.split(4)]
    assert [len(latent) for latent in latents] == [1, 1, 1]
    assert torch.allclose(torch.cat(latents), encoded(model, frames[3:]), atol=1e-5)
    pictures = [vae.decode(latent) for latent in latents]
    assert [len(picture) for picture in pictures] == [4, 4, 4]
    expected = decoded(model, torch.cat(latents))
    assert torch.allclose(pictures[0], expected[:1].expand(4, -1, -1, -1), atol=1e-5)
    assert torch.allclose(torch.cat(pictures[1:]), expected[1:], atol=1e-5)


@pytest.mark.parametrize(
    ("steady", "counts"), [(False, [4]), (False, [1, 3]), (False, [0]), (True, [1]), (True, [4, 5])]
)
def test_chunks_that_do_not_fill_their_latents(steady: bool, counts: list[int]) -> None:
    vae = StreamingWanVae(wan(), steady)
    for count in counts[:-1]:
        vae.encode(clip(count))
    with pytest.raises(ValueError, match=f"^{counts[-1]} frames do not fill"):
        vae.encode(clip(counts[-1]))


def held(kept: Any) -> int:
    """Bytes of a cache. None of it is a view, which would hold on to the whole chunk it is of."""
    tensors = [value for value in (kept.values() if isinstance(kept, dict) else kept) if isinstance(value, Tensor)]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)
    return sum(tensor.nbytes for tensor in tensors)


def test_memory_does_not_grow() -> None:
    for vae in (StreamingWanVae(wan(), steady=True), LightVae(network(), steady=True)):
        sizes = []
        for n in range(8):
            vae.decode(vae.encode(clip(8, seed=n)))
            sizes.append((held(vae._seen), held(vae._shown)))
        assert sizes[3] == sizes[-1]
        assert min(sizes[-1]) > 0
    light = LightVae(network())
    light.encode(clip(7))  # what does not fill a group is kept as well
    assert held(light._seen) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_kinds_run_in_either_precision(dtype: torch.dtype) -> None:
    for vae in (StreamingWanVae(wan().to(dtype), steady=True), LightVae(network().to(dtype), steady=True)):
        for _ in range(3):
            latents = vae.encode(clip(4))
            pictures = vae.decode(latents)
            assert (tuple(latents.shape), latents.dtype) == ((1, CHANNELS, HEIGHT // 8, WIDTH // 8), dtype)
            assert (tuple(pictures.shape), pictures.dtype) == ((4, 3, HEIGHT, WIDTH), dtype)
            assert float(pictures.float().abs().max()) <= 1


def light_shapes() -> dict[str, tuple[int, ...]]:
    """Weights of ``taew2_1.pth`` by the reference's ``TAEHV.__init__``, and which have biases."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, after: int, before: int, side: int = 3, bias: bool = False) -> None:
        shapes[f"{name}.weight"] = (after, before, side, side)
        if bias:
            shapes[f"{name}.bias"] = (after,)

    def mem(name: str, width: int) -> None:
        for n, before in ((0, 2 * width), (2, width), (4, width)):
            conv(f"{name}.conv.{n}", width, before, bias=True)

    conv("encoder.0", 64, 3, bias=True)
    for start, stride in ((2, 2), (7, 2), (12, 1)):
        conv(f"encoder.{start}.conv", 64, 64 * stride, side=1)
        conv(f"encoder.{start + 1}", 64, 64)
        for n in range(start + 2, start + 5):
            mem(f"encoder.{n}", 64)
    conv("encoder.17", 16, 64, bias=True)
    conv("decoder.1", 256, 16, bias=True)
    for start, before, after, stride in ((3, 256, 128, 1), (9, 128, 64, 2), (15, 64, 64, 2)):
        for n in range(start, start + 3):
            mem(f"decoder.{n}", before)
        conv(f"decoder.{start + 4}.conv", stride * before, before, side=1)
        conv(f"decoder.{start + 5}", after, before)
    conv("decoder.22", 3, 64, bias=True)
    return shapes


def test_the_light_network_has_the_names_and_shapes_of_its_checkpoints() -> None:
    with torch.device("meta"):
        weights = LightNetwork().state_dict()
    assert {name: tuple(value.shape) for name, value in weights.items()} == light_shapes()


@torch.no_grad()
def whole(layers: torch.nn.Sequential, x: Tensor) -> Tensor:
    """A clip through the light network in one go, by the weights alone."""
    for layer in layers:
        kind = type(layer).__name__
        if kind == "_MemBlock":
            before = torch.cat([torch.zeros_like(x[:1]), x])[:-1]
            x = torch.relu(layer.conv(torch.cat([x, before], 1)) + x)
        elif kind == "_TPool":
            x = layer.conv(torch.stack([torch.cat(list(group)) for group in x.split(layer.stride)]))
        elif kind == "_TGrow":
            x = torch.cat([torch.stack(frame.chunk(layer.stride)) for frame in layer.conv(x)])
        else:
            x = layer(x)
    return x


@pytest.mark.parametrize("cut", [[4, 4, 4], [12], [1, 4, 4, 3], [2, 1, 9]])
def test_a_light_stream_is_the_whole_clip(cut: list[int]) -> None:
    model, frames = network(), clip(12)
    vae = LightVae(model)
    latents = streamed(vae, frames, cut)
    assert tuple(latents.shape) == (3, CHANNELS, HEIGHT // 8, WIDTH // 8)
    assert torch.allclose(latents, whole(model.encoder, frames / 2 + 0.5), atol=1e-5)
    pictures = shown(vae, 9 * latents, [1, 2])
    # The three before the first frame are dropped, as in the reference.
    assert torch.allclose(pictures, whole(model.decoder, 9 * latents)[3:].clamp(0, 1) * 2 - 1, atol=1e-5)
    assert float(pictures.std()) > 0.01
    vae.reset()
    assert len(vae.encode(frames[:3])) == 0
    assert torch.allclose(vae.encode(frames[3:4]), latents[:1], atol=1e-5)
    assert len(vae.decode(latents[:0])) == 0
    assert torch.allclose(vae.decode(9 * latents[:1]), pictures[:1], atol=1e-5)


def test_a_steady_light_stream_gives_four_frames_for_four() -> None:
    model, frames = network(), clip(12)
    vae, other = LightVae(model, steady=True), LightVae(model, steady=True)
    pictures = []
    for chunk in frames.split(4):
        other.decode(other.encode(-chunk))
        latents = vae.encode(chunk)
        assert len(latents) == 1
        pictures.append(vae.decode(latents))
    assert [len(picture) for picture in pictures] == [4, 4, 4]
    expected = whole(model.decoder, whole(model.encoder, frames / 2 + 0.5)).clamp(0, 1) * 2 - 1
    assert torch.allclose(pictures[0], expected[3:4].expand(4, -1, -1, -1), atol=1e-5)
    assert torch.allclose(torch.cat(pictures[1:]), expected[4:], atol=1e-5)


@pytest.mark.parametrize("name", ["taew2_1.pth", "taew2_1.safetensors"])
def test_light_checkpoints_load(tmp_path: Path, name: str) -> None:
    model, place = network(), tmp_path / name
    weights = dict(model.state_dict())
    # As where time may grow in the first stage too: of each frame's two, the last is taken.
    grown = weights["decoder.7.conv.weight"]
    weights["decoder.7.conv.weight"] = torch.cat([torch.randn_like(grown), grown])
    if name.endswith(".pth"):
        torch.save(weights, place)
    else:
        save_file(weights, place)
    loaded = load_light_vae(str(place), steady=True)
    assert loaded.channels == CHANNELS
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.network.state_dict().items())
    assert len(loaded.decode(loaded.encode(clip(4)))) == 4
    assert load_light_vae(str(place), dtype=torch.bfloat16).encode(clip(4)).dtype == torch.bfloat16


def test_light_checkpoints_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.pth does not exist; give"):
        load_light_vae(str(tmp_path / "none.pth"))
    place = tmp_path / "taew2_1.pth"
    torch.save({"something": torch.zeros(3)}, place)
    with pytest.raises(UsageError, match="is no light autoencoder; give taew2_1"):
        load_light_vae(str(place))
    weights = network().state_dict()
    torch.save({name: value for name, value in weights.items() if name != "encoder.4.conv.2.bias"}, place)
    with pytest.raises(UsageError, match=r"lacks encoder\.4\.conv\.2\.bias; check"):
        load_light_vae(str(place))
    torch.save(weights, place)
    place.write_bytes(place.read_bytes()[:2000])
    with pytest.raises(UsageError, match=r"cannot be loaded .*; check that"):
        load_light_vae(str(place))
