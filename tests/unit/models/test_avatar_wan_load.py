"""Large avatars from files with the names and shapes that they are published with, at tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.models.avatar_wan.flash_head import FlashWan
from streamfx.models.avatar_wan.injection import SoundSize
from streamfx.models.avatar_wan.load import load_avatar
from streamfx.models.avatar_wan.speaker import SpeakingWan
from streamfx.models.causal_wan.dit import WanSize
from streamfx.models.causal_wan.lora import fuse

DIM, HIDDEN, LAYERS, CHANNELS, TEXT, TIME = 128, 64, 2, 4, 16, 32
"""Heads are 128 wide in all Wan models, and shapes do not tell how many there are."""

AUDIO, STATES, TOKENS = 6, 3, 2

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def attention(name: str) -> Shapes:
    shapes: Shapes = {f"{name}.norm_q.weight": (DIM,), f"{name}.norm_k.weight": (DIM,)}
    for part in "qkvo":
        shapes |= linear(f"{name}.{part}", DIM, DIM)
    return shapes


def convolution(name: str, out: int, into: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (out, into, *kernel), f"{name}.bias": (out,)}


def wan(into: int) -> Shapes:
    """What both have of Wan."""
    shapes = convolution("patch_embedding", DIM, into, 1, 2, 2)
    shapes |= linear("text_embedding.0", DIM, TEXT) | linear("text_embedding.2", DIM, DIM)
    shapes |= linear("time_embedding.0", DIM, TIME) | linear("time_embedding.2", DIM, DIM)
    shapes |= linear("time_projection.1", 6 * DIM, DIM)
    for n in range(LAYERS):
        block = f"blocks.{n}"
        shapes |= attention(f"{block}.self_attn") | attention(f"{block}.cross_attn")
        shapes |= {f"{block}.modulation": (1, 6, DIM), f"{block}.norm3.weight": (DIM,), f"{block}.norm3.bias": (DIM,)}
        shapes |= linear(f"{block}.ffn.0", HIDDEN, DIM) | linear(f"{block}.ffn.2", DIM, HIDDEN)
    return shapes | linear("head.head", 4 * CHANNELS, DIM) | {"head.modulation": (1, 2, DIM)}


def s2v() -> Shapes:
    """Wan2.2-S2V: 165 names more than Wan's, with its twelve layers that ask; here with two."""
    shapes = wan(CHANNELS) | convolution("cond_encoder", DIM, CHANNELS, 1, 2, 2)
    encoder = "casual_audio_encoder"
    shapes |= {f"{encoder}.weights": (1, STATES, 1, 1), f"{encoder}.encoder.padding_tokens": (1, 1, 1, DIM)}
    shapes |= convolution(f"{encoder}.encoder.conv1_local.conv", DIM // 4 * TOKENS, AUDIO, 3)
    shapes |= convolution(f"{encoder}.encoder.conv1_global.conv", DIM // 4, AUDIO, 3)
    shapes |= convolution(f"{encoder}.encoder.conv2.conv", DIM // 2, DIM // 4, 3)
    shapes |= convolution(f"{encoder}.encoder.conv3.conv", DIM, DIM // 2, 3)
    shapes |= linear(f"{encoder}.encoder.final_linear", DIM, DIM)
    for n in range(2):
        shapes |= attention(f"audio_injector.injector.{n}")
        shapes |= linear(f"audio_injector.injector_adain_layers.{n}.linear", 2 * DIM, DIM)
    shapes |= convolution("frame_packer.proj", DIM, CHANNELS, 1, 2, 2)
    shapes |= convolution("frame_packer.proj_2x", DIM, CHANNELS, 2, 4, 4)
    shapes |= convolution("frame_packer.proj_4x", DIM, CHANNELS, 4, 8, 8)
    return shapes | {"trainable_cond_mask.weight": (3, DIM)}


def flash_head() -> Shapes:
    """SoulX-FlashHead Model_Pro."""
    width, inner, tokens = STATES * AUDIO, 8, 3
    shapes = wan(2 * CHANNELS) | linear("audio_proj.proj1", inner, 5 * width)
    shapes |= linear("audio_proj.proj1_vf", inner, 8 * width) | linear("audio_proj.proj2", inner, inner)
    shapes |= linear("audio_proj.proj3", tokens * DIM, inner)
    shapes |= {"audio_proj.norm.weight": (DIM,), "audio_proj.norm.bias": (DIM,)}
    for n, (out, into) in {1: (AUDIO, AUDIO), 3: (DIM, AUDIO)}.items():
        shapes |= linear(f"audio_emb.proj.{n}", out, into)
    return shapes | {"audio_emb.proj.0.weight": (AUDIO,), "audio_emb.proj.4.weight": (DIM,)}


def filled(shapes: Shapes) -> Weights:
    torch.manual_seed(0)
    return {name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}


def saved(folder: Path, weights: Weights, after: list[int] | None = None, shards: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    if after is not None:
        (folder / "config.json").write_text(json.dumps({"audio_inject_layers": after}))
    names = {name: f"diffusion_pytorch_model-{n % shards}.safetensors" for n, name in enumerate(weights)}
    for file in set(names.values()):
        save_file({name: weights[name] for name, at in names.items() if at == file}, folder / file)
    if shards > 1:
        index = folder / "diffusion_pytorch_model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": names}))
    return folder


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_wan_s2v_is_loaded_with_every_name(tmp_path: Path, shards: int, prefix: str) -> None:
    weights = filled(s2v())
    named = {f"{prefix}{name}": value for name, value in weights.items()}
    loaded = load_avatar(str(saved(tmp_path / "s2v", named, [0, 1], shards)), dtype=torch.float32)
    assert isinstance(loaded, SpeakingWan)
    assert loaded.size == WanSize(DIM, 1, HIDDEN, LAYERS, CHANNELS, TEXT, TIME)
    assert loaded.sound == SoundSize(STATES, AUDIO, TOKENS, (0, 1))
    found = loaded.state_dict()
    assert set(found) == set(weights)
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_what_is_heard_stays_in_single_precision(tmp_path: Path) -> None:
    loaded = load_avatar(str(saved(tmp_path / "s2v", filled(s2v()), [0, 1])))
    assert isinstance(loaded, SpeakingWan)
    assert loaded.patch_embedding.weight.dtype == torch.bfloat16
    assert loaded.casual_audio_encoder.weights.dtype == torch.float32
    heard = loaded.listen(torch.randn(13, STATES, AUDIO, dtype=torch.bfloat16), 1)
    assert heard.tokens.dtype == heard.whole.dtype == torch.bfloat16


def test_flash_head_is_loaded_with_every_name_that_it_asks(tmp_path: Path) -> None:
    weights = filled(flash_head())
    loaded = load_avatar(str(saved(tmp_path / "pro", weights)), dtype=torch.float32)
    assert isinstance(loaded, FlashWan)
    found = loaded.state_dict()
    assert set(weights) - set(found) == {name for name in weights if name.startswith(("text_embedding", "audio_emb"))}
    assert set(found) <= set(weights)
    assert all(torch.equal(value, weights[name]) for name, value in found.items())
    assert loaded.audio_proj.width == STATES * AUDIO
    assert loaded.audio_proj(torch.randn(2 + 33, STATES, AUDIO)).shape == (9, 3, DIM)


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_the_lora_of_live_avatar_is_fused_into_all_that_it_names(tmp_path: Path, prefix: str) -> None:
    """It has halves for q, k, v, o, ffn.0 and ffn.2, wherever they are: those that ask for sound among them."""
    weights = filled(s2v())
    loaded = load_avatar(str(saved(tmp_path / "s2v", weights, [0, 1])), dtype=torch.float32)
    targets = [name for name, shape in s2v().items() if name.endswith(("q.weight", "v.weight", "ffn.2.weight"))]
    targets = [name for name in targets if len(weights[name].shape) == 2]
    assert any("audio_injector" in name for name in targets)
    lora = {}
    for name in targets:
        out, into = weights[name].shape
        layer = prefix + name.removesuffix(".weight")
        lora[f"{layer}.lora_A.default.weight"] = torch.randn(2, into)
        lora[f"{layer}.lora_B.default.weight"] = torch.randn(out, 2)
    place = tmp_path / "liveavatar.safetensors"
    save_file(lora, place)
    fuse(loaded, str(place), 0.5)
    found = loaded.state_dict()
    for name, value in weights.items():
        layer = prefix + name.removesuffix(".weight")
        change = 0.0
        if name in targets:
            change = 0.5 * lora[f"{layer}.lora_B.default.weight"] @ lora[f"{layer}.lora_A.default.weight"]
        assert torch.allclose(found[name], value + change, atol=1e-5)


def test_what_is_known_without_a_config(tmp_path: Path) -> None:
    place = saved(tmp_path / "s2v", filled(s2v()))
    with pytest.raises(UsageError, match="asked for after 2 of 2 layers, and it is not known which; put the"):
        load_avatar(str(place))
    saved(place, filled(s2v()), [0, 7])
    with pytest.raises(UsageError, match=r"config.json, with audio_inject_layers, beside it"):
        load_avatar(str(place))


FOREIGN = {
    "is a Wan without sound": wan(CHANNELS),
    "is a HuMo": wan(CHANNELS) | {"audio_proj.audio_proj_glob_1.layer.bias": (2,)},
    "is a MultiTalk or an InfiniteTalk": flash_head() | {"blocks.0.audio_cross_attn.proj.bias": (2,)},
    "is a LoRA, which goes to loras": {"blocks.0.self_attn.q.lora_A.default.weight": (2, DIM)},
    "is no avatar": {"encoder.conv_in.weight": (2, 2)},
    "is a Wan2.2-S2V with another motion encoder": s2v() | {"motioner.patch_embedding.bias": (2,)},
}


@pytest.mark.parametrize("words", FOREIGN)
def test_foreign_files_are_told_apart(tmp_path: Path, words: str) -> None:
    place = saved(tmp_path / "some", filled(FOREIGN[words]), [0, 1])
    with pytest.raises(UsageError, match=f"{words}.*; give the checkpoint of Wan2.2-S2V, or Model_Pro"):
        load_avatar(str(place))


def test_broken_files_say_what_they_lack(tmp_path: Path) -> None:
    weights = filled(s2v())
    weights.pop("audio_injector.injector.1.o.bias")
    with pytest.raises(UsageError, match=r"lacks audio_injector\.injector\.1\.o\.bias; check that it is the right"):
        load_avatar(str(saved(tmp_path / "a", weights, [0, 1])))
    weights = filled(s2v()) | {"cond_encoder.weight": torch.zeros(DIM, CHANNELS + 1, 1, 2, 2)}
    with pytest.raises(UsageError, match=r"has another shape in cond_encoder\.weight"):
        load_avatar(str(saved(tmp_path / "b", weights, [0, 1])))
    lite = filled(flash_head()) | {"patch_embedding.weight": torch.zeros(DIM, 256, 1, 1, 1)}
    with pytest.raises(UsageError, match=r"FlashHead Lite is for LTX's"):
        load_avatar(str(saved(tmp_path / "c", lite)))
    lacking = filled(flash_head())
    lacking.pop("time_embedding.0.weight")
    with pytest.raises(UsageError, match=r"lacks time_embedding\.0\.weight"):
        load_avatar(str(saved(tmp_path / "d", lacking)))
    with pytest.raises(UsageError, match="does not exist"):
        load_avatar(str(tmp_path / "nothing"))
