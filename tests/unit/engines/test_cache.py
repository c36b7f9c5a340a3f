"""The cache of engines on disk, and what an engine's key depends on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from streamfx.core.errors import UsageError
from streamfx.engines import Part
from streamfx.engines.base import Length
from streamfx.engines.cache import EngineCache, default_folder, default_limit, key_of
from streamfx.engines.recipe import Recipe, names


def fill(cache: EngineCache, key: str, data: bytes = b"engine") -> Path:
    with cache.making(key, "part", "onnx") as folder:
        (folder / "model.onnx").write_bytes(data)
    found = cache.find(key)
    assert found is not None
    return found


def test_what_was_made_is_found(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "deep" / "engines")
    assert cache.find("one") is None
    assert cache.entries() == []
    folder = fill(cache, "one", b"first")
    assert (folder / "model.onnx").read_bytes() == b"first"
    fill(cache, "one", b"again")
    assert (folder / "model.onnx").read_bytes() == b"first", "who comes second keeps what is there"
    (entry,) = cache.entries()
    assert (entry.key, entry.part, entry.recipe) == ("one", "part", "onnx")
    assert entry.size > 5
    assert abs(entry.made - time.time()) < 60
    assert [path.name for path in cache.folder.iterdir()] == ["one"]


def test_nothing_is_left_of_one_that_fails(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)

    def fail() -> None:
        with cache.making("one", "part", "onnx") as folder:
            (folder / "half").write_bytes(b"x")
            raise RuntimeError("the builder died")

    with pytest.raises(RuntimeError, match="the builder died"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.onnx").write_bytes(b"engina"),
        lambda folder: (folder / "model.onnx").unlink(),
        lambda folder: (folder / "meta.json").write_text("{"),
        lambda folder: (folder / "meta.json").write_text("[]"),
        lambda folder: (folder / "meta.json").unlink(),
    ],
)
def test_what_is_damaged_is_made_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    cache = EngineCache(tmp_path)
    damage(fill(cache, "one"))
    assert cache.find("one") is None
    assert not (tmp_path / "one").exists()
    assert (fill(cache, "one") / "model.onnx").read_bytes() == b"engine"


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=25_000)
    for n, key in enumerate(("one", "two")):
        folder = fill(cache, key, bytes(10_000))
        os.utime(folder / "meta.json", (n, n))
    assert cache.find("one") is not None, "which is a use"
    fill(cache, "three", bytes(10_000))
    assert {entry.key for entry in cache.entries()} == {"one", "three"}
    fill(cache, "large", bytes(60_000))
    assert {entry.key for entry in cache.entries()} == {"large"}, "the newest stays, however large"


def test_leftovers_of_the_dead_are_removed(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, alive = (tmp_path / f".begun-{pid}-x" for pid in (ended.pid, os.getpid()))
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "half").write_bytes(b"x")
    fill(cache, "one")
    assert not dead.exists()
    assert alive.exists()
    assert [entry.key for entry in cache.entries()] == ["one"]


def test_removing(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for key in ("abc1", "abc2", "xyz"):
        fill(cache, key)
    for bad in ("abc", "none", ""):
        with pytest.raises(UsageError, match="streamfx engines ls shows them"):
            cache.remove(bad)
    cache.remove("abc1")
    assert {entry.key for entry in cache.entries()} == {"abc2", "xyz"}
    assert cache.clear() == 2
    assert cache.entries() == []


def test_where_and_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMFX_ENGINES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "streamfx" / "engines"
    monkeypatch.setenv("STREAMFX_ENGINES", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv("STREAMFX_ENGINES_GB", raising=False)
    assert default_limit() == 4_000_000_000
    for bad in ("much", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("STREAMFX_ENGINES_GB", bad)
        with pytest.raises(UsageError, match="a number of gigabytes above 0"):
            default_limit()


class Net(nn.Module):
    def __init__(self, seed: int = 0, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.second(self.first(x).relu()),)


def part(net: nn.Module, side: int = 16, free: bool = True) -> Part:
    dynamic = {"x": {2: Length("height", 2)}} if free else {}
    return Part("net", net, {"x": torch.zeros(1, 3, side, side)}, ("y",), dynamic)


def test_a_key_is_of_all_that_counts() -> None:
    base = key_of(part(Net()), Recipe("openvino"))
    assert key_of(part(Net()), Recipe("openvino")) == base
    assert key_of(part(Net()), Recipe("openvino", "bf16")) == base, "they run the same file"
    assert key_of(part(Net().to(memory_format=torch.channels_last)), Recipe("onnxruntime")) == base  # type: ignore[call-overload]
    others = [
        key_of(part(Net(1)), Recipe("openvino")),
        key_of(part(Net(width=9)), Recipe("openvino")),
        key_of(part(Net().double()), Recipe("openvino")),
        key_of(part(nn.Sequential(Net())), Recipe("openvino")),
        key_of(part(Net(), side=32), Recipe("openvino")),
        key_of(part(Net(), free=False), Recipe("openvino")),
        key_of(part(Net()), Recipe("openvino", "int8")),
        key_of(part(Net()), Recipe("compile")),
        key_of(part(Net()), Recipe("openvino"), shapes=[[1, 3, 16, 16]]),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_recipes_by_name() -> None:
    assert [str(Recipe.parse(name)) for name in names()] == names()
    assert Recipe.parse("openvino-bf16") == Recipe("openvino", "bf16")
    for bad in ("", "opnvino", "openvino-fp7", "auto", "-bf16"):
        with pytest.raises(UsageError, match="choose one of eager, eager-bf16, eager-fp16, compile"):
            Recipe.parse(bad)
    with pytest.raises(UsageError, match="onnxruntime does not compute in bf16 here; it has fp32, int8"):
        Recipe.parse("onnxruntime-bf16")
    assert "torch" in Recipe("eager").versions
    assert {"torch", "onnx"} <= Recipe("onnxruntime").versions.keys()


def test_meta_is_json_with_checksums(tmp_path: Path) -> None:
    meta = json.loads((fill(EngineCache(tmp_path), "one") / "meta.json").read_text())
    assert set(meta) == {"part", "recipe", "made", "files"}
    assert len(meta["files"]["model.onnx"]) == 64
