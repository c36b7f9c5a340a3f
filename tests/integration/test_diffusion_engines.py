"""The filters ``sd`` and ``wan`` by engines that are really built: made ahead, made beside the stream, and taken."""

from __future__ import annotations

import importlib.util
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamfx.engines import error_of
from streamfx.engines.build import build
from streamfx.engines.cache import EngineCache
from streamfx.filters import Block, Context
from streamfx.filters.host import FilterHost
from streamfx.models.causal_wan import engines as wan_engines
from streamfx.models.causal_wan.video import Memory
from streamfx.models.sd import engines as sd_engines
from streamfx_plugins.sd import Sd, SdParams
from tests.unit.plugins.test_diffusion_filters import FRAME, play, sd, sd_folder, wan, wan_folder

__all__ = ["sd_folder", "wan_folder"]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.*hf_hub_download:UserWarning"),
]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")

_LONGEST = 400.0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv("STREAMFX_ENGINES", str(tmp_path / "engines"))
    return EngineCache()


def taken_over(subject: FilterHost, count: int) -> str:
    """Plays until the stream runs by engines, and gives what it told then."""
    ends, told = time.monotonic() + _LONGEST, list[str]()
    while not any("the stream runs by engines now" in note for note in told):
        assert time.monotonic() < ends, told
        assert not any("goes on without engines" in note for note in told), told
        play(subject, 0, count, count)
        told += subject.notes()
        time.sleep(0.5)  # what builds comes after everybody else
    return told[-1]


def same(ours: list[Block], theirs: list[Block]) -> bool:
    """But for what rounding does to a few pixels."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.pts == other.pts
        if one.pts and int(np.abs(one.frames.astype(int) - other.frames.astype(int)).max()) > 2:
            return False
    return True


def levels(subject: FilterHost, count: int) -> list[Block]:
    """Filling, full, cheaper, and anew."""
    subject.reset()
    given = [*play(subject, 0, 5 * count, count), *play(subject, 5 * count, 8 * count, count, quality=2)]
    subject.reset()
    return [*given, *play(subject, 8 * count, 11 * count, count)]


def test_sd_by_engines_that_were_made_ahead(sd_folder: Path, cache: EngineCache) -> None:
    params: dict[str, Any] = {"steps": 3, "guidance": "full", "engine": "onnxruntime"}
    places = {"model": str(sd_folder), "vae": str(sd_folder / "taesd"), "side": 64, "device": "cpu", "offline": True}
    told: list[str] = []
    context = Context(FRAME, threads=2, logger=logging.getLogger(), tell=told.append)
    Sd().compile(context, SdParams(**places, **params))
    assert [text.split(" is taken")[0] for text in told] == [
        f"{name}: onnxruntime" for name in ("denoise", "encode", "decode")
    ]
    entries = cache.entries()
    assert sorted(entry.part for entry in entries) == ["decode", "denoise", "encode", "fit"]
    subject, plain = sd(sd_folder, **params), sd(sd_folder, steps=3, guidance="full")
    told_last = taken_over(subject, 1)
    assert all(f"{name} by onnxruntime" in told_last for name in ("denoise", "encode", "decode"))
    assert {entry.key for entry in cache.entries()} == {entry.key for entry in entries}, "nothing was built"
    assert same(levels(subject, 1), levels(plain, 1))
    assert same(levels(subject, 2), levels(plain, 2))
    subject.close()
    plain.close()


def test_wan_by_an_engine_that_is_made_beside_it(wan_folder: Path, cache: EngineCache) -> None:
    params: dict[str, Any] = {"steps": 2, "sinks": 1, "window": 2, "cuts": False, "calm": 0.0}
    subject, plain = wan(wan_folder, engine="openvino", **params), wan(wan_folder, **params)
    assert taken_over(subject, 4) == "the stream runs by engines now: denoise by openvino"
    assert sorted(entry.part for entry in cache.entries()) == ["denoise", "fit"]
    assert same(levels(subject, 4), levels(plain, 4))
    subject.close()
    plain.close()


@needs_gpu
@pytest.mark.parametrize("kind", ["compile", "tensorrt"])
@pytest.mark.parametrize("filter", ["sd", "wan"])
def test_on_a_gpu(filter: str, kind: str, sd_folder: Path, wan_folder: Path, cache: EngineCache) -> None:
    if kind == "tensorrt" and importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed")
    if filter == "sd":
        of = sd_engines.Checkpoint(str(sd_folder), str(sd_folder / "taesd"), [], "cuda", "float16", True)
        order = sd_engines.order(of, (64, 64), (1, 2), 2, "self", f"{kind}-fp16", 2)
    else:
        generator = wan_engines.Checkpoint(str(wan_folder / "g.pt"), [], "cuda", "bfloat16")
        vae = str(wan_folder / "light.safetensors")
        order = wan_engines.order(generator, vae, Memory(), (64, 64), (2, 1), "none", f"{kind}-bf16", 2)
    fit, work = build(order, cache), order.made()
    engines = fit.loaded(work.parts, cache, 2, "cuda")
    assert engines is not None
    assert set(engines) == set(work.parts)
    plain, changed = work.run({}), work.run(engines)
    for _ in range(4):
        wanted, found = plain(), changed()
    assert error_of([found[0].cpu()], [wanted[0].cpu()]) < 0.1  # type: ignore[index]
