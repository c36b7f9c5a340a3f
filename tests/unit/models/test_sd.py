"""Our Stable Diffusion against diffusers', on tiny random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, LCMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from streamfx.core.errors import UsageError
from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.schedules import lcm
from streamfx.diffusion.stream_batch import Call, StreamBatch
from streamfx.models.sd.load import TextEncoder, load
from streamfx.models.sd.network import StableDiffusion, TextEmbedding
from tests.unit.models.sdkit import WIDTH, WORDS, checkpoint, controlnet, tiny_vae, unet

pytestmark = pytest.mark.filterwarnings("ignore:.*hf_hub_download:UserWarning")  # of diffusers' own calls


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


@pytest.mark.parametrize("indices", [[32], [32, 45], [18, 26, 35, 45]])
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


@torch.no_grad()
def test_a_controlnet_sees_the_frame_of_each_row() -> None:
    """The stream batch with a ControlNet ≡ each frame through its steps with its own hint."""
    network, control = unet(), controlnet()
    model = StableDiffusion(unet(), tiny_vae(), "cpu", torch.float32, controlnet())
    model.set_prompt(prompt())
    model.control_scale = 0.7
    torch.manual_seed(5)
    schedule, noise = lcm([22, 32, 45]), torch.randn(3, 1, 4, 8, 8)
    sources, hints = torch.randn(5, 1, 4, 8, 8), torch.rand(5, 1, 3, 64, 64)
    batch = StreamBatch(model, schedule, noise)
    found = []
    for source, hint in zip(sources, hints, strict=True):
        model.hint(hint)
        found.append(batch.step(source))
    for n, output in enumerate(found[2:]):
        x = sources[n]
        for step in range(3):
            row = slice(step, step + 1)
            x = schedule.noised(x, noise[step], row)
            words = {"encoder_hidden_states": prompt().tokens[None], "return_dict": False}
            given = (x, schedule.timesteps[row])
            down, middle = control(*given, controlnet_cond=hints[n], conditioning_scale=0.7, **words)
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            x = schedule.x0(x, network(*given, **words, **more)[0], row)
        assert output is not None
        assert torch.allclose(output, x, atol=1e-4)


@pytest.mark.parametrize("naming", ["peft", "kohya"])
def test_loras_are_fused(tmp_path: Path, naming: str) -> None:
    place = str(checkpoint(tmp_path))
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    before = unet().get_submodule(name).weight
    torch.manual_seed(0)
    down, up = torch.randn(2, before.shape[1]), torch.randn(before.shape[0], 2)
    flat = f"lora_unet_{name.replace('.', '_')}"
    named = {
        "peft": {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up},
        "kohya": {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": torch.tensor(2.0)},
    }
    lora = tmp_path / "style.safetensors"
    save_file(named[naming], lora)
    model, _ = load(place, vae=str(tmp_path / "taesd"), loras=[(str(lora), 0.7), (str(lora), 0.1)], offline=True)
    after = model.unet.get_submodule(name)
    assert type(after) is torch.nn.Linear, "nothing is left of the LoRA but its weights"
    assert torch.allclose(after.weight, before + 0.8 * up @ down, atol=1e-5)


def test_loras_that_are_none(tmp_path: Path) -> None:
    place = str(checkpoint(tmp_path))
    vae, lora = str(tmp_path / "taesd"), tmp_path / "style.safetensors"
    for content in ({"unet.nowhere.lora_A.weight": torch.zeros(2, 8)}, {"some.weight": torch.zeros(2)}):
        save_file(content, lora)
        with pytest.raises(UsageError, match=r"style\.safetensors: the LoRA cannot be loaded"):
            load(place, vae=vae, loras=[(str(lora), 1.0)], offline=True)
    with pytest.raises(UsageError, match="the LoRA cannot be loaded"):
        load(place, vae=vae, loras=[(str(tmp_path / "missing.safetensors"), 1.0)], offline=True)


class Moves(torch.nn.Module):
    """A text encoder that notes where it is moved to. (The only device here is the CPU: the thinnest seam there is.)"""

    def __init__(self, places: list[str]) -> None:
        super().__init__()
        self.places = places

    def to(self, device: torch.device) -> Moves:  # type: ignore[override]
        self.places.append(str(device))
        return self


def test_the_text_encoder_is_on_the_device_only_while_it_is_asked() -> None:
    for resident, expected in ((False, ["meta", "cpu"]), (True, ["meta"])):
        places: list[str] = []
        text = TextEncoder([(None, Moves(places))], "meta", resident)
        text._embed = lambda prompt: TextEmbedding(torch.zeros(1, 1))  # type: ignore[method-assign]
        for _ in range(3):
            text.embed("the same prompt is not asked for again")
        assert places == expected
