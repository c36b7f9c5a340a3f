"""Causal Wan by an engine: what it is called with, and that nobody sees who draws. The engine is torch's own; others
are in tests/integration/test_diffusion_engines.py."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.kv_store import Storage
from streamfx.diffusion.rope import Rope3D
from streamfx.engines import Eager, error_of
from streamfx.engines import takeover as module
from streamfx.models.causal_wan.dit import TEXT_TOKENS
from streamfx.models.causal_wan.engines import Checkpoint, all_parts, order, recorded, takeover, use
from streamfx.models.causal_wan.parts import EngineWan
from streamfx.models.causal_wan.vae import LightNetwork
from streamfx.models.causal_wan.video import Memory, WanVideo
from tests.unit.models.test_sd_engines import Counted, rows_of
from tests.unit.models.test_tiny_takeover import Swap
from tests.unit.models.test_wan_load import SIZE, generator
from tests.unit.models.test_wan_video import LOOK, chunk, play, video

FULL = replace(LOOK, steps=3, guidance=Guidance("full", 2.0))


def played(subject: WanVideo) -> list[Tensor]:
    """Filling, full, with fewer steps, and anew."""
    given = [*play(subject, 0, 5, FULL), *play(subject, 5, 7, replace(FULL, steps=1))]
    subject.reset()
    given += play(subject, 7, 11, FULL)
    return [shown for shown, of in given if of]


@pytest.mark.parametrize("rows", [(1, 2, 3), (1, 3)])
@pytest.mark.parametrize("storage", ["same", "int8"])
def test_nobody_sees_who_draws(storage: Storage, rows: tuple[int, ...]) -> None:
    memory = Memory(sinks=1, window=2, storage=storage)
    plain, changed = (video(memory=memory, negative=True) for _ in range(2))
    engine = Counted(all_parts(changed._model)["denoise"], rows)
    first = [subject.step(*chunk(20), FULL) for subject in (plain, changed)]
    assert torch.equal(first[0][0], first[1][0])
    use(changed, {"denoise": engine})
    wanted, found = played(plain), played(changed)
    assert [len(x) for x in found] == [len(x) for x in wanted]
    assert error_of(found, wanted) < (1e-3 if storage == "same" else 2e-2)
    # Two calls a chunk, with and without the prompt; with two rows twice.
    assert engine.calls == (22 if len(rows) == 3 else 18)
    assert changed._stepper is not None
    assert isinstance(changed._stepper.model.denoise, EngineWan)


def test_frames_at_different_steps_are_the_models() -> None:
    plain, changed = video(joint=True), video(joint=True)
    engine = Counted(all_parts(changed._model)["denoise"])
    use(changed, {"denoise": engine})
    wanted, found = (play(subject, 0, 4) for subject in (plain, changed))
    assert error_of([shown for shown, _ in found], [shown for shown, _ in wanted]) < 1e-3
    assert engine.calls == 3, "one for each frame that has left the window"


@torch.no_grad()
def test_half_precision_rounds_no_timesteps() -> None:
    model, rope = generator(), Rope3D(SIZE.head_dim, (2, 3), 8)
    size = CacheSize(1, 0, 1, 6, SIZE.heads, SIZE.head_dim)
    caches = [LayerCache(size) for _ in range(SIZE.layers)]
    prompt, chance = model.prepare(torch.zeros(TEXT_TOKENS, SIZE.text_dim)), torch.Generator().manual_seed(0)
    given = torch.randn(1, 1, SIZE.channels, 4, 6, generator=chance), torch.tensor([937.7]), prompt, caches, rope
    engine = EngineWan(Eager(all_parts(model)["denoise"], torch.bfloat16), model, SIZE)
    assert error_of([engine(*given)], [model(*given)]) < 0.02


def known(folder: Path) -> tuple[Checkpoint, str]:
    torch.save(generator().state_dict(), folder / "g.pt")
    torch.manual_seed(4)
    save_file(LightNetwork(SIZE.channels, 8, (16, 8, 8, 8)).state_dict(), folder / "light.safetensors")
    return Checkpoint(str(folder / "g.pt"), [], "cpu", "float32"), str(folder / "light.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_shapes_that_a_stream_comes_to_use_are_asked_for(dtype: str, tmp_path: Path) -> None:
    of, vae = known(tmp_path)
    of = replace(of, dtype=dtype)
    wanted = order(of, vae, Memory(sinks=1, window=1), (32, 48), (3, 2, 1), "onetime", "onnxruntime", 1)
    assert json.loads(json.dumps(asdict(wanted))) == asdict(wanted)
    work = wanted.made()
    samples = work.samples(())
    assert rows_of(samples["denoise"]) == [1, 2, 3]
    for given in samples["denoise"]:
        work.parts["denoise"].check(given)
        assert given[2].shape[2] == 2 * 2 * 3, "all slots, filled or not"
    assert str(work.usual) == ("eager" if dtype == "float32" else "eager-bf16")
    assert work.run({"denoise": Eager(work.parts["denoise"])})() is not None


def test_the_engine_is_taken_between_two_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    Swap.made = []
    monkeypatch.setattr(module, "HotSwap", Swap)
    subject, told = video(), []  # type: ignore[var-annotated]
    of = Checkpoint("somewhere", [], "cpu", "float32")
    wanted = order(of, "light", Memory(), (32, 32), (2, 1, 1), "none", "openvino", 1)
    taking = takeover(subject, subject._model, of, wanted, told.append)
    (swap,) = Swap.made
    swap.wants_inputs = True
    with taking.frame():
        subject.step(*chunk(0), LOOK)
    assert rows_of(swap.given[0]["denoise"]) == [1]
    engine = Counted(all_parts(subject._model)["denoise"])
    swap.ready = {"denoise": engine}
    with taking.frame(), recorded(subject) as inputs:
        subject.step(*chunk(1), LOOK)
    assert rows_of(inputs["denoise"]) == [2]
    assert engine.calls == 1
    assert told == ["the stream runs by engines now: denoise by counted"]
    taking.close()
