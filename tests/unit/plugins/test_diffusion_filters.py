"""The filters ``sd`` and ``wan`` on tiny random checkpoints, as the worker drives them."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from streamfx.core.errors import FilterError, UsageError
from streamfx.engines.build import Fit, Order
from streamfx.engines.cache import EngineCache
from streamfx.filters.base import Block, Context
from streamfx.filters.host import FilterHost, FilterSpec
from streamfx.filters.registry import setup_fields, target_of
from streamfx.models.causal_wan.lora import fuse
from streamfx.models.causal_wan.vae import LightNetwork
from streamfx_plugins.pictures import network_size, parse_loras, to_frames, to_tensor
from streamfx_plugins.sd import Sd
from streamfx_plugins.wan import Wan
from tests.unit.models.sdkit import checkpoint, controlnet
from tests.unit.models.test_wan_load import SIZE, generator, text_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*hf_hub_download:UserWarning")

FRAME = (96, 64)


def host(name: str, **params: Any) -> FilterHost:
    return FilterHost(FilterSpec(target_of(name), FRAME, 30.0, 2, params | {"device": "cpu", "offline": True}))


def play(subject: FilterHost, first: int, last: int, count: int = 1, quality: int = 0) -> list[Block]:
    """Noise that goes on for good; each frame has its number as pts."""
    out = []
    for start in range(first, last, count):
        numbers = range(start, start + count)
        frames = [np.random.default_rng(n).integers(0, 256, (FRAME[1], FRAME[0], 3), np.uint8) for n in numbers]
        block = Block(video=np.stack(frames), pts=tuple(float(n) for n in numbers), quality=quality)
        out.append(subject.run(block, 1.0))
    return out


def moments(blocks: list[Block]) -> list[list[float]]:
    return [list(block.pts) for block in blocks]


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = checkpoint(tmp_path_factory.mktemp("sd"))
    controlnet().save_pretrained(folder / "canny")
    return folder


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = text_folder(tmp_path_factory.mktemp("wan"))
    torch.save(
        {"generator": {f"model.{name}": value for name, value in generator().state_dict().items()}}, folder / "g.pt"
    )
    torch.manual_seed(4)
    save_file(LightNetwork(SIZE.channels, 8, (16, 8, 8, 8)).state_dict(), folder / "light.safetensors")
    return folder


def sd(folder: Path, **params: Any) -> FilterHost:
    return host("sd", model=str(folder), vae=str(folder / "taesd"), side=64, **params)


def wan(folder: Path, **params: Any) -> FilterHost:
    places = {"model": str(folder / "g.pt"), "text": str(folder), "vae": str(folder / "light.safetensors")}
    return host("wan", **(places | {"side": 64} | params))


def test_sd_gives_pictures_of_the_frames_they_are_of(sd_folder: Path) -> None:
    subject = sd(sd_folder, steps=3, guidance="full", negative="a dog")
    given = play(subject, 0, 6)
    assert moments(given) == [[], [], [0.0], [1.0], [2.0], [3.0]]
    assert given[-1].frames.shape == (1, FRAME[1], FRAME[0], 3)
    assert given[-1].frames.std() > 1
    assert moments(play(subject, 6, 8, quality=2)) == [[6.0], [7.0]], "cheaper: a single step"
    subject.reset()
    assert moments(play(subject, 8, 11)) == [[], [], [8.0]]
    subject.close()


def test_sd_takes_several_frames_at_a_time(sd_folder: Path) -> None:
    assert moments(play(sd(sd_folder, steps=2), 0, 8, count=4)) == [[], [0.0, 1.0, 2.0, 3.0]]


def test_sd_is_changed_live(sd_folder: Path) -> None:
    subject = sd(sd_folder, steps=1)
    params = {"model": str(sd_folder), "steps": 1}
    before = play(subject, 0, 1)[0].frames
    subject.configure(params | {"seed": 5})
    other = play(subject, 0, 1)[0].frames
    assert (before != other).any()
    subject.configure(params | {"seed": 0})
    assert (play(subject, 0, 1)[0].frames == before).all(), "the same again"


def test_sd_with_a_controlnet(sd_folder: Path) -> None:
    extra = {"control": "canny", "control_model": str(sd_folder / "canny"), "steps": 2}
    with_it, without = sd(sd_folder, **extra), sd(sd_folder, steps=2)
    assert (play(with_it, 0, 3)[-1].frames != play(without, 0, 3)[-1].frames).any()


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"model": "/nowhere/at-all"}, "does not exist; give the folder of unet"),
        ({"device": "cuda:77"}, "no device 'cuda:77' here"),
        ({"loras": "style=much"}, "write PLACE or PLACE=WEIGHT"),
        ({"control": "canny", "control_model": "/nowhere"}, "does not exist; give the folder of the ControlNet"),
        ({"control": "canny", "engine": "openvino"}, "does not take what a ControlNet adds; choose eager, or control"),
        ({"engine": "openvino-int8"}, "openvino-int8 is for restyle; with sd take the same without int8, or auto"),
        ({"engine": "tensorrt-fp16"}, "tensorrt runs on an NVIDIA GPU; with device cpu take onnxruntime or openvino"),
    ],
)
def test_what_sd_cannot_do_is_a_sentence(sd_folder: Path, params: dict[str, Any], sentence: str) -> None:
    given = {"model": str(sd_folder), "vae": str(sd_folder / "taesd"), "side": 64, "offline": True, "device": "cpu"}
    with pytest.raises(FilterError, match=sentence) as caught:
        FilterHost(FilterSpec(target_of("sd"), FRAME, 30.0, 1, given | params))
    assert "Error:" not in str(caught.value), "no class names for users"


@pytest.mark.parametrize("joint", [False, True])
def test_wan_gives_pictures_of_the_frames_they_are_of(wan_folder: Path, joint: bool) -> None:
    subject = wan(wan_folder, steps=2, joint=joint, sinks=1, window=2, cuts=False)
    frames = [float(n) for n in range(20)]
    given = play(subject, 0, 20, count=4)
    assert moments(given) == [[], [0.0], frames[1:5], frames[5:9], frames[9:13]]
    assert given[-1].frames.shape == (4, FRAME[1], FRAME[0], 3)
    subject.reset()
    assert moments(play(subject, 20, 28, count=4)) == [[], [20.0]]
    subject.close()


def test_a_new_prompt_for_wan_does_not_stop_the_stream(wan_folder: Path) -> None:
    subject = wan(wan_folder, steps=1, prompt="a cat", calm=0.0)
    filter: Wan = subject._filter  # type: ignore[assignment]
    embed, played, embedded = filter._text.embed, threading.Event(), []

    def slow(prompt: str) -> torch.Tensor:
        assert played.wait(60), "the encoder was waited for"
        embedded.append(prompt)
        return embed(prompt)

    filter._text.embed = slow  # type: ignore[method-assign]
    subject.configure({"steps": 1, "prompt": "a dog in the rain", "calm": 0.0})
    first = filter._stream._prompt
    play(subject, 0, 4, count=4)
    assert filter._stream._prompt is first
    assert not embedded
    played.set()
    while not embedded or filter._asked is not None:
        play(subject, 4, 8, count=4)
    assert embedded == ["a dog in the rain"]
    assert filter._stream._prompt is not first
    subject.close()


def test_wan_with_its_own_autoencoder(wan_folder: Path) -> None:
    from diffusers import AutoencoderKLWan

    levels = {"latents_mean": [0.0] * SIZE.channels, "latents_std": [1.0] * SIZE.channels}
    AutoencoderKLWan(
        base_dim=8, z_dim=SIZE.channels, num_res_blocks=1, dim_mult=[1, 1, 1, 1], **levels
    ).save_pretrained(wan_folder / "vae")
    subject = wan(wan_folder, vae="full", steps=2, cuts=False)
    assert moments(play(subject, 0, 8, count=4)) == [[], [0.0, 1.0, 2.0, 3.0]]
    subject.close()


def test_wan_that_is_not_here(wan_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAMFX_MODELS", str(tmp_path))
    with pytest.raises(FilterError, match="streamfx models pull self-forcing"):
        wan(wan_folder, model="self-forcing")
    with pytest.raises(FilterError, match=r"streamfx models pull taew2\.1"):
        wan(wan_folder, vae="light")


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"engine": "openvino", "joint": True}, "does not denoise frames jointly; choose eager, or joint false"),
        ({"engine": "onnxruntime-int8"}, "onnxruntime-int8 is for restyle; with wan take the same without int8"),
        ({"engine": "fast"}, "there is no engine 'fast'; choose one of eager"),
    ],
)
def test_what_wan_cannot_run_by_is_a_sentence(wan_folder: Path, params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FilterError, match=sentence):
        wan(wan_folder, **params)


@pytest.mark.parametrize("name", ["sd", "wan"])
def test_what_is_made_ahead_is_what_the_stream_asks_for(
    name: str, sd_folder: Path, wan_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Order] = []
    told: list[str] = []

    def built(order: Order, cache: EngineCache, frames: object) -> Fit:
        asked.append(order)
        return Fit({}, {}, ["denoise: it is told"])

    class Swap:
        def __init__(self, order: Order, parts: object, told: object, frames: object) -> None:
            asked.append(order)

        def close(self) -> None:
            told.append("closed")

    monkeypatch.setattr("streamfx.engines.build.build", built)
    monkeypatch.setattr("streamfx.engines.takeover.HotSwap", Swap)
    made, kind, of = (sd, Sd, sd_folder) if name == "sd" else (wan, Wan, wan_folder)
    subject = made(of, engine="openvino", steps=2)
    context = Context(FRAME, threads=2, logger=logging.getLogger(), tell=told.append)
    kind().compile(context, subject._params)  # type: ignore[arg-type]
    assert asked[0] == asked[1]
    assert asked[0].given["threads"] == torch.get_num_threads()
    assert told == ["denoise: it is told"]
    subject.close()
    assert told[1:] == ["closed"]


@pytest.mark.parametrize("naming", ["longlive", "diffusers", "kohya"])
def test_loras_for_wan_are_fused(tmp_path: Path, naming: str) -> None:
    model, layer = generator(), "blocks.1.self_attn.q"
    before = model.get_submodule(layer).weight.clone()
    torch.manual_seed(0)
    down, up = torch.randn(2, before.shape[1]), torch.randn(before.shape[0], 2)
    stem = {
        "longlive": f"base_model.model.{layer}",
        "diffusers": "transformer.blocks.1.attn1.to_q",
        "kohya": f"diffusion_model.{layer}",
    }[naming]
    file = tmp_path / "lora.pt"
    if naming == "longlive":
        torch.save({"generator_lora": {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}}, file)
    elif naming == "diffusers":
        torch.save({f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}, file)
    else:
        halves = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(4.0)}
        torch.save(halves, file)
    fuse(model, str(file), 0.5)
    change = (2.0 if naming == "kohya" else 1.0) * 0.5 * up @ down
    assert torch.allclose(model.get_submodule(layer).weight, before + change, atol=1e-5)


def test_loras_for_wan_that_are_none(tmp_path: Path) -> None:
    model, file = generator(), str(tmp_path / "lora.pt")
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def pair(layer: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
        return {f"{layer}.lora_A.weight": torch.ones(2, columns), f"{layer}.lora_B.weight": torch.ones(rows, 2)}

    good = pair("blocks.0.ffn.0", SIZE.hidden, SIZE.dim)
    for content, sentence in (
        ({"some.weight": torch.zeros(2)}, "is no LoRA"),
        (good | {"blocks.9.ffn.0.lora_A.weight": torch.ones(2, 3)}, "one half only"),
        (good | pair("blocks.0.o", 3, 3), "of another"),
        (good | pair("blocks.1.ffn.0", 3, 3), "of another"),
    ):
        torch.save(content, file)
        with pytest.raises(UsageError, match=sentence):
            fuse(model, file)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frames_to_tensors_and_back() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)
    tensor = to_tensor(frames, (48, 32), "cpu", torch.float32)
    assert tuple(tensor.shape) == (2, 3, 32, 48)
    assert (to_frames(tensor) == frames).all()
    small = to_tensor(frames, (24, 16), "cpu", torch.float32)
    assert float(small.mean()) == pytest.approx(float(tensor.mean()), abs=0.01)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [((1280, 720), (704, 384)), ((720, 1280), (384, 704)), ((512, 512), (512, 512))],
)
def test_the_network_has_the_shape_of_the_frame(frame: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(frame, 512, 64) == expected


def test_lists_of_loras() -> None:
    assert parse_loras(" a, b=0.6,c/d.safetensors=1 ,") == [("a", 1.0), ("b", 0.6), ("c/d.safetensors", 1.0)]
    assert parse_loras("") == []


def test_what_names_files_is_for_set_up_only() -> None:
    assert {"model", "vae", "loras", "control_model", "depth_model", "device"} <= setup_fields(Sd)
    assert {"model", "text", "vae", "loras", "device"} <= setup_fields(Wan)
