"""Each kernel against its reference in eager torch and under torch.compile, on a GPU, in one run.

    PYTHONPATH=.:kernels python -m benchmarks.kernels [NAME …]

Times are medians by CUDA events, the three ways by turns. "of copy" is the bandwidth reached, bytes read and written at
least once, as a share of what a plain copy of 1 GiB reaches in the same run. Attention is at the shapes of Wan 1.3B and
14B at 832x480, with one sink and six frames of window; its reference gathers, turns and joins the keys and calls
``scaled_dot_product_attention``; "of peak" is its products as a share of the data sheet's bfloat16.
Needs torch and triton, nothing else of what streamfx needs.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx.diffusion.schedules import flow
from streamfx_kernels import pixels
from streamfx_kernels.guided_step import guided_step
from streamfx_kernels.likeness import likeness
from streamfx_kernels.modulate import modulated_norm, normed_and_turned
from streamfx_kernels.ring_attention import ring_attention
from streamfx_kernels.store_frame import store_frame
from streamfx_kernels.switch import forced

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "4090": 165.0, "L40S": 362.0}
"""Dense bf16, by the makers' data sheets."""


@dataclass(frozen=True, slots=True)
class Case:
    """``bytes``: read and written at least; ``flops``: of matrix products, 0 where there are none."""

    name: str
    run: Callable[[], Any]
    bytes: int
    flops: float = 0.0


def weigh(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def bf16(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def of_guidance() -> Iterator[Case]:
    schedule = flow([1000, 750, 500, 250])
    table = schedule.coefficients.cuda()
    x, said, other, noise = (bf16(4, 3, 16, 60, 104) for _ in range(4))
    yield Case(
        "guidance and step, 4 rows of Wan's latents",
        lambda: guided_step(x, said, other, noise, table, "flow", "residual", 1.3, 0.9),
        weigh(x, said, other, noise, x, noise),
    )
    large = [bf16(16, 3, 16, 120, 208) for _ in range(4)]
    table16 = table.repeat(4, 1)
    yield Case(
        "the same, 16 rows at twice the size",
        lambda: guided_step(*large, table16, "flow", "residual", 1.3, 0.9),
        weigh(*large) + weigh(large[0], large[0]),
    )


def of_attention() -> Iterator[Case]:
    for name, heads in (("1.3B", 12), ("14B", 40)):
        for storage in ("same", "int8"):
            for frames in (1, 3):
                yield _attention(name, heads, storage, frames)


def _attention(name: str, heads: int, storage: Any, frames: int) -> Case:
    grid, dim, rows = (30, 52), 128, 4
    tokens = grid[0] * grid[1]
    cache = LayerCache(CacheSize(rows, 1, 6, tokens, heads, dim), None, torch.bfloat16, "cuda", storage)
    for _ in range(9):
        for row in range(rows):
            cache.append(bf16(tokens, heads, dim), bf16(tokens, heads, dim), row)
    query, key, value = (bf16(rows, frames, tokens, heads, dim) for _ in range(3))
    rope = Rope3D(dim, grid, 7 + frames, device="cuda")
    ring, sees, turns = cache.ring, cache.rows(range(rows)), rope.time_turns.contiguous()
    held = [part for part in (ring.keys, ring.values, ring.key_scales, ring.value_scales) if part is not None]
    return Case(
        f"attention, Wan {name}, {rows} rows, {frames} new, ring {storage}",
        lambda: ring_attention(query, key, value, ring, sees, turns),
        weigh(query, key, value, query, *held),
        4.0 * rows * heads * dim * frames * tokens * (7 + frames) * tokens,
    )


def of_modulation() -> Iterator[Case]:
    x, scale, shift = bf16(4, 3, 1560, 1536), bf16(4, 1, 1, 1536).float(), bf16(4, 1, 1, 1536).float()
    yield Case("AdaLN, Wan 1.3B", lambda: modulated_norm(x, scale, shift), weigh(x, x))
    query, key, rope = bf16(4, 3, 1560, 12, 128), bf16(4, 3, 1560, 12, 128), Rope3D(128, (30, 52), 8, device="cuda")
    weight, turns = bf16(1536), rope.turns.contiguous()
    yield Case(
        "RMS norm and rotation of q and k, Wan 1.3B",
        lambda: normed_and_turned(query, key, weight, weight, turns, rope.time_dim),
        2 * weigh(query, key),
    )


def of_pixels() -> Iterator[Case]:
    frames = torch.randint(256, (4, 720, 1280, 3), device="cuda", dtype=torch.uint8)
    pictures = torch.rand(4, 3, 480, 832, device="cuda", dtype=torch.float16) * 2 - 1
    luma, chroma = frames[..., 0].contiguous(), frames[:, ::2, ::2, :2].contiguous()
    small, large = (832, 480), (1280, 720)
    yield Case("RGB 720p to 832x480", lambda: pixels.to_network(frames, small), weigh(frames, pictures))
    yield Case("RGB 720p as it is", lambda: pixels.to_network(frames, large), 3 * weigh(frames))
    yield Case("832x480 to RGB 720p", lambda: pixels.to_frames(pictures, large), weigh(frames, pictures))
    yield Case(
        "NV12 720p to 832x480", lambda: pixels.nv12_to_network(luma, chroma, small), weigh(luma, chroma, pictures)
    )
    yield Case("832x480 to NV12 720p", lambda: pixels.to_nv12(pictures, large), weigh(luma, chroma, pictures))


def of_likeness() -> Iterator[Case]:
    frame, other = torch.rand(3, 720, 1280, device="cuda"), torch.rand(3, 32, 57, device="cuda")
    yield Case("likeness of 720p", lambda: likeness(frame, other), weigh(frame))


def of_storing() -> Iterator[Case]:
    value = bf16(1560, 40, 128)
    for kind in (torch.int8, torch.float8_e4m3fn):
        slot, scale = torch.empty(value.shape, device="cuda").to(kind), torch.empty(1560, 40, 1, device="cuda")
        yield Case(
            f"store a frame in {str(kind).removeprefix('torch.')}, Wan 14B",
            lambda slot=slot, scale=scale: store_frame(value, slot, scale),
            weigh(value, slot, scale),
        )


CASES = {
    "guidance": of_guidance,
    "attention": of_attention,
    "modulation": of_modulation,
    "pixels": of_pixels,
    "likeness": of_likeness,
    "storing": of_storing,
}


def timed(runs: dict[str, Callable[[], Any]], rounds: int = 30) -> dict[str, float]:
    """Medians in milliseconds, by turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    for _ in range(rounds):
        for name, run in runs.items():
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            before.record()
            run()
            after.record()
            torch.cuda.synchronize()
            times[name].append(before.elapsed_time(after))
    return {name: statistics.median(some) for name, some in times.items()}


def forcing(mode: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    def one() -> None:
        with forced(mode):
            run()

    return one


def copy_bandwidth() -> float:
    """Bytes a second."""
    source = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * 2**30 / (timed({"copy": lambda: target.copy_(source)})["copy"] / 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    given = parser.parse_args()
    unknown = set(given.names) - set(CASES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))} is none of {', '.join(CASES)}")
    if not torch.cuda.is_available():
        parser.exit(1, "kernels: there is no CUDA GPU here, and without one these figures mean nothing\n")
    device = torch.cuda.get_device_name()
    peak = next((value for name, value in PEAK_TFLOPS.items() if name in device), None)
    bandwidth = copy_bandwidth()
    print(
        f"{device}, torch {torch.__version__}, Python {platform.python_version()}; copies {bandwidth / 1e9:.0f} GB/s\n"
    )
    print("| | kernel, ms | eager, ms | compiled, ms | times eager | times compiled | of copy | of peak |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in given.names or CASES:
        for case in CASES[name]():
            torch._dynamo.reset()
            ways = {
                "kernel": forcing("triton", case.run),
                "eager": forcing("reference", case.run),
                "compiled": forcing("reference", torch.compile(case.run)),
            }
            times = timed(ways)
            kernel = times["kernel"]
            rates = f"{times['eager'] / kernel:.2f} | {times['compiled'] / kernel:.2f}"
            reached = case.bytes / (kernel / 1e3) / bandwidth
            share = f"{case.flops / (kernel / 1e3) / (peak * 1e12):.0%}" if case.flops and peak else ""
            shown = " | ".join(f"{times[way]:.3f}" for way in ways)
            print(f"| {case.name} | {shown} | {rates} | {reached:.0%} | {share} |", flush=True)


if __name__ == "__main__":
    main()
