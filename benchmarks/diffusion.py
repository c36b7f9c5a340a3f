"""Streaming denoising: frames a second of our stream batch against other ways, on the same random weights in one run.

    python -m benchmarks.diffusion [sd] [wan] [--size tiny|small|real] [--seconds 10] [--device auto] [--compile]

sd: image to image on one UNet, for 1, 2 and 4 steps: by diffusers' pipeline, by its scheduler and UNet alone, by the
package streamdiffusion if it is there (peer_streamdiffusion.py), step after step by ours, and in the stream batch;
then the stream batch with each way of guidance. wan: the causal transformer, 4 steps in one stream batch.
Sizes: "tiny" for a look, "small" for a CPU, "real" for a GPU (SD 1.5 at 512x512; Wan 1.3B and 14B at 832x480, bf16).
Needs torch and diffusers, nothing else of what streamfx needs; where streamfx is not installed, PYTHONPATH=.:kernels.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.peer_streamdiffusion import is_installed, peer
from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.schedules import flow, lcm
from streamfx.diffusion.stream_batch import Call, StreamBatch
from streamfx.models.causal_wan.dit import TEXT_TOKENS, TINY, WAN_1_3B, WAN_14B, CausalWan, WanSize
from streamfx.models.causal_wan.stream import SteppedWan
from streamfx.models.sd.network import StableDiffusion, TextEmbedding

INDICES = {1: [32], 2: [32, 45], 4: [18, 26, 35, 45]}

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "4090": 165.0, "L40S": 362.0}
"""Dense bf16, by the makers' data sheets."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of each call, and of the very first; megabytes at most; floating-point operations of a call."""

    calls: list[float]
    first: float
    memory: float
    flops: float = 0.0


class Bench:
    """A device, and how to measure on it."""

    def __init__(self, device: str, seconds: float, compile: bool) -> None:
        self.compile = compile
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(wanted if device == "auto" else device)
        fast = self.device.type == "cuda" or torch.backends.mkldnn.is_available()
        self.dtype = torch.bfloat16 if fast else torch.float32
        self._seconds = seconds

    def describe(self) -> str:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
        return f"{name}, {self.dtype}, torch {torch.__version__}, Python {platform.python_version()}"

    @property
    def peak(self) -> float:
        """Operations a second that the device could do; 0 if unknown."""
        if self.device.type != "cuda":
            return 0.0
        name = torch.cuda.get_device_name()
        return next((1e12 * tflops for part, tflops in PEAK_TFLOPS.items() if part in name), 0.0)

    @torch.no_grad()
    def measure(self, call: Callable[[], object], flops: float = 0.0) -> Speed:
        """Calls again and again; the first few do not count but for the first."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        first = self._timed(call)
        for _ in range(2):
            call()
        calls: list[float] = []
        while sum(calls) < self._seconds or len(calls) < 3:
            calls.append(self._timed(call))
        memory = torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else 0.0
        return Speed(calls, first, memory, flops)

    def _timed(self, call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def row(self, name: str, speed: Speed, frames: int, floor: float | None) -> float:
        """Prints a line; returns frames a second."""
        p50 = statistics.median(speed.calls)
        p99 = sorted(speed.calls)[int(0.99 * (len(speed.calls) - 1))]
        fps = frames / p50
        against = f"{fps / floor:.2f}" if floor else "1.00"
        used = f"{100 * speed.flops / p50 / self.peak:.0f} %" if self.peak and speed.flops else ""
        memory = f"{speed.memory:.0f}" if speed.memory else ""
        times = f"{1e3 * p50:.1f} | {1e3 * p99:.1f} | {1e3 * speed.first:.0f}"
        print(f"| {name} | {fps:.2f} | {against} | {times} | {memory} | {used} |", flush=True)
        return fps


HEAD = "| way | fps | against the first | call p50, ms | p99, ms | first call, ms | memory, MB | of peak FLOPs |"
RULE = "|---|---:|---:|---:|---:|---:|---:|---:|"


def unet_of(size: str) -> tuple[Any, int]:
    """(a UNet with random weights, side of its latents)."""
    from diffusers import UNet2DConditionModel

    channels = {"tiny": (32, 64), "small": (64, 128, 256), "real": (320, 640, 1280, 1280)}[size]
    down = ("CrossAttnDownBlock2D",) * (len(channels) - 1) + ("DownBlock2D",)
    up = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(channels) - 1)
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=2 if size == "real" else 1,
        cross_attention_dim=768 if size == "real" else 64,
        attention_head_dim=8,
        norm_num_groups=32 if size == "real" else 8,
    )
    return unet, {"tiny": 16, "small": 32, "real": 64}[size]


def bench_sd(bench: Bench, size: str) -> None:
    from diffusers import AutoencoderTiny, LCMScheduler, StableDiffusionImg2ImgPipeline
    from diffusers.utils.logging import set_verbosity_error

    set_verbosity_error()  # the scheduler warns of every list of steps that is not its own
    unet, side = unet_of(size)
    vae = AutoencoderTiny()
    model = StableDiffusion(unet, vae, bench.device, bench.dtype)
    if bench.compile:
        unet.compile(mode="max-autotune-no-cudagraphs")
    tokens = torch.randn(77, unet.config.cross_attention_dim)
    model.set_prompt(TextEmbedding(tokens), TextEmbedding(torch.zeros_like(tokens)))
    pictures = torch.rand(1, 3, 8 * side, 8 * side) * 2 - 1
    noise = torch.randn(4, 1, 4, side, side, device=bench.device, dtype=bench.dtype)
    count = sum(parameter.numel() for parameter in unet.parameters()) / 1e6
    print(f"\nImage to image at {8 * side}x{8 * side}, {count:.0f} M parameters, encoding and decoding included\n")
    print(f"{HEAD}\n{RULE}")
    for steps, indices in INDICES.items():
        scheduler = LCMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        )
        timesteps = [999 - 20 * index for index in indices]
        embedded = tokens[None].to(bench.device, bench.dtype)

        pipeline = StableDiffusionImg2ImgPipeline(
            vae=vae,
            text_encoder=None,
            tokenizer=None,
            unet=unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)

        def pipeline_way(
            pipeline: Any = pipeline, timesteps: Sequence[int] = timesteps, embedded: Tensor = embedded
        ) -> None:
            pipeline(
                prompt_embeds=embedded,
                image=(pictures.to(bench.device, bench.dtype) + 1) / 2,
                timesteps=list(timesteps),
                strength=1.0,
                guidance_scale=1.0,
                output_type="pt",
            )

        def diffusers_way(
            scheduler: Any = scheduler, timesteps: Sequence[int] = timesteps, embedded: Tensor = embedded
        ) -> None:
            scheduler.set_timesteps(timesteps=list(timesteps))
            x = scheduler.add_noise(model.encode(pictures), noise[0], torch.tensor(timesteps[:1]))
            clean = x
            for timestep in scheduler.timesteps:
                eps = unet(x, timestep, encoder_hidden_states=embedded, return_dict=False)[0]
                x, clean = scheduler.step(eps, timestep, x, return_dict=False)
            model.decode(clean)

        schedule = lcm(indices).to(bench.device, bench.dtype)

        def one_by_one(schedule: Any = schedule, steps: int = steps) -> None:
            clean = model.encode(pictures)
            for step in range(steps):
                rows = slice(step, step + 1)
                x = schedule.noised(clean, noise[step], rows)
                answer = model(x[None], schedule.timesteps[rows], Call((step,), 1))[0]
                clean = schedule.x0(x, answer, rows)
            model.decode(clean)

        batch = StreamBatch(model, schedule, noise)

        def streamed(batch: StreamBatch = batch) -> None:
            out = batch.step(model.encode(pictures))
            if out is not None:
                model.decode(out)

        floor = bench.row(f"diffusers' pipeline, {steps} steps", bench.measure(pipeline_way), 1, None)
        bench.row(f"diffusers' scheduler and UNet, {steps}", bench.measure(diffusers_way), 1, floor)
        if is_installed():
            theirs = peer(unet, vae, tokens, indices, side, "none")
            shown = (pictures.to(bench.device, bench.dtype) + 1) / 2
            calls = bench.measure(lambda theirs=theirs, shown=shown: theirs(shown))
            bench.row(f"streamdiffusion (PyPI), {steps}", calls, 1, floor)
        bench.row(f"ours, step after step, {steps}", bench.measure(one_by_one), 1, floor)
        bench.row(f"ours, stream batch, {steps}", bench.measure(streamed), 1, floor)
    print(f"\nGuidance, stream batch of 4 steps\n\n{HEAD}\n{RULE}")
    floor = None
    for mode in ("full", "onetime", "self", "none"):
        batch = StreamBatch(model, lcm(INDICES[4]), noise, Guidance(mode))  # type: ignore[arg-type]
        source = model.encode(pictures)
        fps = bench.row(mode, bench.measure(lambda batch=batch, source=source: batch.step(source)), 1, floor)
        floor = floor or fps


def wan_flops(size: WanSize, tokens: int, past: int) -> float:
    """Multiplications and additions of one latent frame at one step: linear layers, and attention to the past."""
    linear = 2 * tokens * (8 * size.dim**2 + 2 * size.dim * size.hidden)
    attention = 4 * tokens * size.dim * (tokens * (past + 1) + TEXT_TOKENS)
    return float(size.layers * (linear + attention))


def bench_wan(bench: Bench, size: str) -> None:
    shapes: dict[str, list[tuple[str, WanSize, tuple[int, int]]]] = {
        "tiny": [("tiny", TINY, (8, 14))],
        "small": [("0.1 B", WanSize(dim=768, heads=6, hidden=3072, layers=8), (16, 28))],
        "real": [("1.3 B", WAN_1_3B, (60, 104)), ("14 B", WAN_14B, (60, 104))],
    }
    print("\nCausal Wan, 4 steps in one stream batch, 3 sinks and a window of 3; a latent frame is 4 pictures\n")
    print(f"{HEAD}\n{RULE}")
    for name, shape, latent in shapes[size]:
        torch.manual_seed(0)
        with torch.device(bench.device):
            model = CausalWan(shape).to(bench.dtype).eval()
            text = torch.zeros(TEXT_TOKENS, shape.text_dim)
        with torch.no_grad():
            stepped = SteppedWan(model, model.prepare(text), latent)
        noise = torch.randn(4, 1, shape.channels, *latent, device=bench.device, dtype=bench.dtype)
        batch = StreamBatch(stepped, flow([700, 500, 400, 200], 8.0), noise)
        source = torch.randn_like(noise[0])
        if bench.compile:
            for block in model.blocks:
                block.ffn.compile()
        for _ in range(12):  # until every row's window is full
            batch.step(source)
        tokens = latent[0] * latent[1] // 4
        flops = 4 * wan_flops(shape, tokens, 6)
        speed = bench.measure(lambda batch=batch, source=source: batch.step(source), flops)
        bench.row(f"{name}, {8 * latent[1]}x{8 * latent[0]}", speed, 4, None)
        del model, stepped, batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", default=["sd", "wan"])
    parser.add_argument("--size", choices=["tiny", "small", "real"], default="small")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="networks by torch.compile; for a GPU")
    given = parser.parse_args()
    bench = Bench(given.device, given.seconds, given.compile)
    print(bench.describe())
    if "sd" in given.parts:
        bench_sd(bench, given.size)
    if "wan" in given.parts:
        bench_wan(bench, given.size)


if __name__ == "__main__":
    main()
