"""Stable Diffusion with a few thousand random weights, and checkpoints of it on disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

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


def controlnet(seed: int = 7) -> ControlNetModel:
    """One whose last layers are not zeros, as they are before training."""
    torch.manual_seed(seed)
    network = ControlNetModel.from_unet(unet(), conditioning_embedding_out_channels=(8, 8, 8, 8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


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
