"""Which engines are looked at on which device. There need not be a GPU: nothing is made here."""

from __future__ import annotations

import pytest
import torch

from streamfx.core.errors import UsageError
from streamfx.engines.build import candidates
from streamfx.engines.recipe import Recipe


@pytest.mark.parametrize(
    ("engine", "device", "sentence"),
    [
        ("openvino", "cuda", "openvino runs on a CPU; with device cuda take compile-fp16 or tensorrt-fp16 or auto"),
        ("onnxruntime-int8", "cuda:1", "onnxruntime runs on a CPU; with device cuda:1 take compile-fp16 or tensorrt"),
        (
            "tensorrt-fp16",
            "cpu",
            "tensorrt runs on an NVIDIA GPU; with device cpu take onnxruntime or openvino",
        ),
        ("fast", "cuda", "there is no engine 'fast'; choose one of eager"),
    ],
)
def test_what_does_not_run_there_is_a_sentence(engine: str, device: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        candidates(engine, Recipe("eager"), device)


def test_what_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"openvino is not installed; run: pip install 'streamfx\[engines\]'"):
        candidates("openvino", Recipe("eager"))
    with pytest.raises(UsageError, match=r"tensorrt is not installed; run: pip install 'streamfx\[tensorrt\]'"):
        candidates("tensorrt-bf16", Recipe("eager"), "cuda")
    assert candidates("auto", Recipe("eager", "fp16"), "cuda") == [Recipe("compile", "fp16")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_auto_on_a_gpu_keeps_the_streams_precision(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    usual = Recipe.plain(dtype)
    assert candidates("auto", usual, "cuda") == [
        Recipe("compile", usual.precision),
        Recipe("tensorrt", usual.precision),
    ]
    assert candidates("compile-bf16", usual, "cuda") == [Recipe("compile", "bf16")], "one by name is taken as it is"
    assert all(one.backend in ("onnxruntime", "openvino") for one in candidates("auto", usual, "cpu"))
