"""Our Stable Diffusion against diffusers', on tiny random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, LCMScheduler, UNet2DConditionModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from streamfx.core.errors import UsageError
from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.schedules import lcm
from streamfx.diffusion.stream_batch import Call, StreamBatch
from streamfx.models.sd.load import load
from streamfx.models.sd.network import StableDiffusion, TextEmbedding

pytestmark = pytest.mark.filterwarnings("ignore:.*hf_hub_download:UserWarning")  # of diffusers' own calls

WORDS, WIDTH = 77, 32

tqdm.monitor_interval = 0  # no thread that watches progress bars


def unet(wide: bool = False, seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    more = (
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 16,
            "cross_attention_dim": 2 * WIDTH,
        }
        if wide
        else {"cross_attention_dim": WIDTH}
    )
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        **more,
    ).eval()


def tiny_vae() -> AutoencoderTiny:
    torch.manual_seed(1)
    blocks = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    counts = {"num_encoder_blocks": (1, 1, 1, 1), "num_decoder_blocks": (1, 1, 1, 1)}
    return AutoencoderTiny(latent_channels=4, **blocks, **counts).eval()


def prompt(seed: int = 2, width: int = WIDTH, pooled: bool = False) -> TextEmbedding:
    generator = torch.Generator().manual_seed(seed)
    extra = torch.randn(16, generator=generator) if pooled else None
    return TextEmbedding(torch.randn(WORDS, width, generator=generator), extra)


def ours(wide: bool = False) -> StableDiffusion:
    model = StableDiffusion(unet(wide), tiny_vae(), "cpu", torch.float32)
    model.set_prompt(prompt(width=2 * WIDTH, pooled=True) if wide else prompt())
    return model


def theirs(network: UNet2DConditionModel, source: Tensor, noises: Tensor, indices: list[int]) -> Tensor:
    """Image to image by diffusers' own scheduler: noise the latent, then its steps, with the noise we give it."""
    scheduler = LCMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True
    )
    timesteps = [999 - 20 * index for index in indices]
    scheduler.set_timesteps(timesteps=timesteps)
    x = scheduler.add_noise(source, noises[0], torch.tensor(timesteps[:1]))
    for n, timestep in enumerate(scheduler.timesteps):
        eps = network(x, timestep, encoder_hidden_states=prompt().tokens[None], return_dict=False)[0]
        _, clean = scheduler.step(eps, timestep, x, return_dict=False)
        x = clean
        if n + 1 < len(timesteps):
            x = scheduler.add_noise(clean, noises[n + 1], torch.tensor(timesteps[n + 1 : n + 2]))
    return x


@pytest.mark.parametrize("indices", [[32], [32, 45], [22, 32, 45], [18, 26, 35, 45]])
@torch.no_grad()
def test_image_to_image_is_that_of_diffusers(indices: list[int]) -> None:
    model, network = ours(), unet()
    torch.manual_seed(5)
    noise = torch.randn(len(indices), 1, 4, 8, 8)
    sources = torch.randn(5, 1, 4, 8, 8)
    batch = StreamBatch(model, lcm(indices), noise)
    found = [out for out in map(batch.step, sources) if out is not None] + batch.drain()
    for source, output in zip(sources, found, strict=True):
        assert torch.allclose(output, theirs(network, source, noise, indices), atol=1e-4)


@torch.no_grad()
def test_full_guidance_asks_with_and_without_the_prompt() -> None:
    model, network = ours(), unet()
    model.set_prompt(prompt(), prompt(9))
    torch.manual_seed(5)
    noise, source = torch.randn(1, 1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    schedule = lcm([20])
    found = StreamBatch(model, schedule, noise, Guidance("full", 3.0)).step(source)
    x = schedule.noised(source, noise[0], slice(0, 1))
    both = [network(x, 599, encoder_hidden_states=prompt(seed).tokens[None], return_dict=False)[0] for seed in (9, 2)]
    expected = schedule.x0(x, both[0] + 3.0 * (both[1] - both[0]), slice(0, 1))
    assert found is not None
    assert torch.allclose(found, expected, atol=1e-4)


@torch.no_grad()
def test_the_wide_model_is_told_sizes_and_the_pooled_prompt() -> None:
    model, network = ours(wide=True), unet(wide=True)
    x, given = torch.randn(2, 1, 4, 8, 6), prompt(width=2 * WIDTH, pooled=True)
    found = model(x, torch.tensor([500, 100]), Call((0, 1), 1))
    assert given.pooled is not None
    sizes = torch.tensor([[64.0, 48.0, 0.0, 0.0, 64.0, 48.0]]).expand(2, -1)
    more = {"text_embeds": given.pooled.expand(2, -1), "time_ids": sizes}
    tokens = given.tokens.expand(2, -1, -1)
    answer = network(x[:, 0], torch.tensor([500, 100]), tokens, added_cond_kwargs=more, return_dict=False)[0]
    assert torch.allclose(found[:, 0], answer, atol=1e-5)


@torch.no_grad()
def test_pictures_and_latents() -> None:
    model = ours()
    pictures = torch.rand(2, 3, 64, 48) * 2 - 1
    latents = model.encode(pictures)
    assert tuple(latents.shape) == (2, model.channels, 64 // model.shrink, 48 // model.shrink)
    decoded = model.decode(latents)
    assert decoded.shape == pictures.shape
    assert float(decoded.abs().max()) <= 1
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    full = AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, layers_per_block=1, **blocks)
    other = StableDiffusion(unet(), full, "cpu", torch.float32)
    assert torch.equal(other.encode(pictures), other.encode(pictures))
    assert other.decode(other.encode(pictures)).shape == pictures.shape


def test_prompts_blend() -> None:
    a, b = prompt(1, pooled=True), prompt(2, pooled=True)
    assert torch.equal(a.blended(b, 0.0).tokens, a.tokens)
    middle = a.blended(b, 0.5)
    assert torch.allclose(middle.tokens, (a.tokens + b.tokens) / 2, atol=1e-6)
    assert middle.pooled is not None
    with pytest.raises(ValueError, match="no prompt"):
        StableDiffusion(unet(), tiny_vae(), "cpu", torch.float32)(
            torch.zeros(1, 1, 4, 8, 8), torch.zeros(1), Call((0,), 1)
        )


def checkpoint(folder: Path, wide: bool = False) -> Path:
    """A whole diffusers folder of tiny random weights, tokenizer and all."""
    unet(wide).save_pretrained(folder / "unet")
    tiny_vae().save_pretrained(folder / "taesd")
    letters = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    words = {word: n for n, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    for suffix, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection))[: 2 if wide else 1]:
        torch.manual_seed(3)
        config = CLIPTextConfig(vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
                                num_attention_heads=2, max_position_embeddings=WORDS, projection_dim=16,
                                bos_token_id=0, eos_token_id=1)  # fmt: skip
        kind(config).save_pretrained(folder / f"text_encoder{suffix}")
        place = folder / f"tokenizer{suffix}"
        place.mkdir()
        (place / "vocab.json").write_text(json.dumps(words))
        (place / "merges.txt").write_text("#version: 0.2\n")
        (place / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": WORDS, "pad_token": "<|endoftext|>"})
        )
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.mark.parametrize("wide", [False, True])
def test_a_folder_is_loaded(tmp_path: Path, wide: bool) -> None:
    place = str(checkpoint(tmp_path, wide))
    model, text = load(place, vae=str(tmp_path / "taesd"), offline=True)
    one, other = text.embed("a cat"), text.embed("a dog in the rain")
    assert tuple(one.tokens.shape) == (WORDS, 2 * WIDTH if wide else WIDTH)
    assert (one.pooled is not None) == wide
    assert not torch.allclose(one.tokens, other.tokens)
    model.set_prompt(one)
    batch = StreamBatch(model, lcm([32]), torch.randn(1, 1, 4, 8, 8))
    out = batch.step(model.encode(torch.zeros(1, 3, 64, 64)))
    assert out is not None
    assert tuple(model.decode(out).shape) == (1, 3, 64, 64)


def test_checkpoints_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no model_index\.json"):
        load(str(tmp_path), offline=True)
    with pytest.raises(UsageError, match="check the name and the network"):
        load("nobody/nothing-of-this-name", offline=True)
    whole = checkpoint(tmp_path / "whole")
    weights = whole / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UsageError, match="unet cannot be loaded"):
        load(str(whole), vae=str(whole / "taesd"), offline=True)
    for part in weights.parent.iterdir():
        part.unlink()
    with pytest.raises(UsageError, match="check that the folder is whole"):
        load(str(whole), vae=str(whole / "taesd"), offline=True)
