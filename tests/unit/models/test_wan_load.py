"""Generators and text encoders from files of every kind they come in, with tiny random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from streamfx.core.errors import UsageError
from streamfx.models.causal_wan.dit import TEXT_TOKENS, CausalWan, WanSize
from streamfx.models.causal_wan.load import Size, load_generator
from streamfx.models.causal_wan.text import WanText, load_text

SIZE = WanSize(dim=128, heads=1, hidden=64, layers=2, channels=4, text_dim=16, time_dim=32)
"""Heads are 128 wide in all Wan models, and shapes do not tell how many there are."""

tqdm.monitor_interval = 0  # no thread that watches progress bars

Weights = dict[str, Tensor]


def generator(seed: int = 0) -> CausalWan:
    torch.manual_seed(seed)
    return CausalWan(SIZE).eval()


def theirs() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=SIZE.heads,
        attention_head_dim=SIZE.head_dim,
        in_channels=SIZE.channels,
        out_channels=SIZE.channels,
        text_dim=SIZE.text_dim,
        freq_dim=SIZE.time_dim,
        ffn_dim=SIZE.hidden,
        num_layers=SIZE.layers,
    )


def with_prefix(weights: Weights, prefix: str) -> Weights:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def extra(weights: Weights) -> Weights:
    """What may lie beside a generator."""
    names = ("text_encoder.shared.weight", "vae.conv.bias", "freqs", "_cls_pred_branch.0.weight", "_register_tokens.x")
    return weights | {name: torch.zeros(2) for name in names}


FAMILIES: dict[str, Callable[[Weights], dict[str, object]]] = {
    "original": lambda weights: {**weights},
    "self-forcing": lambda weights: {
        "generator": with_prefix({name: torch.zeros(1) for name in weights}, "model."),
        "generator_ema": with_prefix(weights, "model."),
    },
    "causvid": lambda weights: {"generator": with_prefix(weights, "model."), "step": 3000},
    "longlive": lambda weights: {"generator": with_prefix(weights, "model._fsdp_wrapped_module.")},
    "streamdiffusionv2": lambda weights: {"generator": extra(with_prefix(weights, "model."))},
    "compiled": lambda weights: {"model": with_prefix(weights, "_orig_mod.")},
    "krea": lambda weights: {**with_prefix(weights, "model.")},
    "krea-flat": lambda weights: {**extra(weights)},
}


def same(found: CausalWan, expected: Weights) -> bool:
    weights = found.state_dict()
    return set(weights) == set(expected) and all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_pickled_checkpoints_of_all_families(tmp_path: Path, family: str, old: bool) -> None:
    """``old``: as torch before 1.6 wrote them, which cannot be mapped."""
    weights, place = generator().state_dict(), tmp_path / "model.pt"
    torch.save(FAMILIES[family](weights), place, _use_new_zipfile_serialization=not old)
    loaded = load_generator(str(place), dtype=torch.float32)
    assert loaded.size == SIZE
    assert same(loaded, weights)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("family", ["original", "krea", "krea-flat"])
@pytest.mark.parametrize("sharded", [False, True])
def test_safetensors_of_all_families(tmp_path: Path, family: str, sharded: bool) -> None:
    weights = generator().state_dict()
    flat = {name: value for name, value in FAMILIES[family](weights).items() if isinstance(value, Tensor)}
    if not sharded:
        save_file(flat, tmp_path / "model.safetensors")
        places = [tmp_path / "model.safetensors", tmp_path]
    else:
        files = {name: f"model-0000{n % 2}.safetensors" for n, name in enumerate(flat)}
        for file in set(files.values()):
            save_file({name: value for name, value in flat.items() if files[name] == file}, tmp_path / file)
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": files}))
        places = [index, tmp_path]
    for place in places:
        assert same(load_generator(str(place), dtype=torch.float32), weights)


@pytest.mark.parametrize("shard", ["10GB", "200KB"])
@torch.no_grad()
def test_folders_of_diffusers(tmp_path: Path, shard: str) -> None:
    model = theirs()
    model.save_pretrained(tmp_path / "transformer", max_shard_size=shard)
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) == 1 or shard == "200KB"
    for place in (tmp_path, tmp_path / "transformer"):
        loaded = load_generator(str(place), dtype=torch.float32)
        assert loaded.size == SIZE
        assert torch.equal(loaded.blocks[1].cross_attn.q.weight, model.blocks[1].attn2.to_q.weight)
        assert torch.equal(loaded.head.modulation, model.scale_shift_table)


def test_what_is_loaded_is_its_own(tmp_path: Path) -> None:
    """In the dtype that is asked for, and nothing of it hangs on the file."""
    weights, place = generator().state_dict(), tmp_path / "model.pt"
    torch.save(weights, place)
    loaded = load_generator(str(place))
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.bfloat16}
    loaded = load_generator(str(place), dtype=torch.float32)
    # Written over in place: a map of the file would show it.
    size = place.stat().st_size
    with place.open("r+b") as file:
        file.write(bytes(size))
    assert same(loaded, weights)


@pytest.mark.parametrize("size", ["1.3B", "14B"])
def test_a_checkpoint_of_another_size(tmp_path: Path, size: Size) -> None:
    torch.save(generator().state_dict(), tmp_path / "model.pt")
    with pytest.raises(UsageError, match=f"is no {size} generator .* it is 128 wide with 2 layers .*; give"):
        load_generator(str(tmp_path / "model.pt"), size)


def test_weights_that_are_not_the_models(tmp_path: Path) -> None:
    weights, place = dict(generator().state_dict()), tmp_path / "model.pt"

    def says(what: str, changed: object) -> None:
        torch.save(changed, place)
        with pytest.raises(UsageError, match=what) as raised:
            load_generator(str(place))
        assert "\n" not in str(raised.value)

    lacking = ("head.head.bias", "blocks.1.modulation", "blocks.0.norm3.bias", "blocks.0.self_attn.q.bias")
    without = {name: value for name, value in weights.items() if name not in lacking}
    says(r"lacks blocks\.0\.self_attn\.q\.bias, blocks\.0\.norm3\.bias, .* and 1 more; check", without)
    says(r"holds what is not of this model: blocks\.0\.self_attn\.q\.scale_weight; check",
         weights | {"blocks.0.self_attn.q.scale_weight": torch.ones(1)})  # fmt: skip
    says(r"has another shape in head\.head\.weight; check", weights | {"head.head.weight": torch.zeros(3, 128)})
    says(r"is no checkpoint of a Wan generator: it lacks patch_embedding\.weight, .*; give", {"x": torch.zeros(1)})
    flat = weights | {"text_embedding.0.weight": torch.zeros(9)}
    says("is no checkpoint of a Wan generator: its weights have other shapes; give", flat)
    says("holds no weights", {"generator": {}})
    says(r"model\.pt holds no weights by name", [torch.zeros(1)])
    says("is damaged, or holds more than weights", {"model": weights, "config": Path("x")})


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; give a checkpoint's file"):
        load_generator(str(tmp_path / "none.pt"))
    with pytest.raises(UsageError, match="holds no checkpoint; give a file of"):
        load_generator(str(tmp_path))
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match="is of no kind that is known; give"):
        load_generator(str(tmp_path / "notes.txt"))
    weights = generator().state_dict()
    for name in ("a.safetensors", "b.safetensors"):
        save_file(weights, tmp_path / name)
    with pytest.raises(UsageError, match=r"holds a\.safetensors, b\.safetensors; give the one"):
        load_generator(str(tmp_path))
    torch.save(weights, tmp_path / "c.pt")
    for name in ("a.safetensors", "c.pt"):
        whole = (tmp_path / name).read_bytes()
        for size in (0, 100, 5000):
            (tmp_path / name).write_bytes(whole[:size])
            with pytest.raises(UsageError, match=r"cannot be loaded .*; check that the folder is whole"):
                load_generator(str(tmp_path / name))
    index = tmp_path / "x.safetensors.index.json"
    for text in ("{", "{}", json.dumps({"weight_map": {"a": "gone.safetensors"}})):
        index.write_text(text)
        with pytest.raises(UsageError, match=r"cannot be loaded .*; check that the folder is whole"):
            load_generator(str(index))


def umt5() -> UMT5EncoderModel:
    torch.manual_seed(3)
    return UMT5EncoderModel(
        UMT5Config(vocab_size=64, d_model=SIZE.text_dim, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    ).eval()


def text_folder(folder: Path) -> Path:
    """In diffusers' layout: a word is a token, and every prompt ends with one."""
    umt5().save_pretrained(folder / "text_encoder")
    words = ["<pad>", "</s>", "<unk>", "a", "cat", "dog", "in", "the", "rain", "&"]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    whole: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    whole.save_pretrained(folder / "tokenizer")
    return folder


@torch.no_grad()
def test_prompts_are_padded_with_zeros(tmp_path: Path) -> None:
    text = load_text(str(text_folder(tmp_path)), dtype=torch.float32, offline=True)
    found = text.embed("a  cat in\nthe rain")
    assert text.text_dim == SIZE.text_dim
    assert tuple(found.shape) == (TEXT_TOKENS, SIZE.text_dim)
    # The tokens alone give the same: padding is masked.
    expected = umt5()(torch.tensor([[3, 4, 6, 7, 8, 1]])).last_hidden_state[0]
    assert torch.allclose(found[:6], expected, atol=1e-5)
    assert not found[6:].any()
    assert torch.equal(text.embed("a &amp;amp; cat"), text.embed(" a & cat "))
    assert int(text.embed("").any(dim=1).sum()) == 1
    assert int(text.embed("a cat " * 400).any(dim=1).sum()) == TEXT_TOKENS
    assert load_text(str(tmp_path), offline=True).embed("a dog").dtype == torch.bfloat16


@torch.no_grad()
def test_a_generator_takes_what_the_text_encoder_gives(tmp_path: Path) -> None:
    prompt = generator().prepare(load_text(str(text_folder(tmp_path)), offline=True).embed("a cat"))
    assert tuple(prompt.layers[0][0].shape) == (TEXT_TOKENS, SIZE.heads, SIZE.head_dim)


@pytest.mark.parametrize("resident", [False, True])
def test_the_encoder_is_on_the_device_only_for_a_prompt(tmp_path: Path, resident: bool) -> None:
    loaded = load_text(str(text_folder(tmp_path)), offline=True)
    encoder = loaded._encoder
    places: list[str] = []
    moved = encoder.to

    def to(device: torch.device | str) -> Any:
        places.append(str(device))
        return moved("cpu")

    encoder.to = to
    text = WanText(loaded._tokenizer, encoder, "cpu:0", resident)
    assert places == (["cpu:0"] if resident else [])
    text.embed("a cat")
    assert places == (["cpu:0"] * 2 if resident else ["cpu:0", "cpu"])
    text.offload()
    assert places[-1] == "cpu"


def test_text_encoders_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no folder text_encoder; give"):
        load_text(str(tmp_path), offline=True)
    with pytest.raises(UsageError, match="check the name and the network"):
        load_text("nobody/nothing-of-this-name", offline=True)
    weights = text_folder(tmp_path) / "text_encoder" / "model.safetensors"
    held = umt5().state_dict()
    lacking = "encoder.block.0.layer.0.SelfAttention.q.weight"
    save_file({name: value for name, value in held.items() if name not in {lacking, "encoder.embed_tokens.weight"}},
              weights, metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(UsageError, match=f"it lacks {lacking}"):
        load_text(str(tmp_path), offline=True)
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UsageError, match=r"text_encoder cannot be loaded .*; check that the folder is whole"):
        load_text(str(tmp_path), offline=True)
    for part in (tmp_path / "tokenizer").iterdir():
        part.unlink()
    with pytest.raises(UsageError, match=r"tokenizer cannot be loaded .*; check that the folder is whole"):
        load_text(str(tmp_path), offline=True)
