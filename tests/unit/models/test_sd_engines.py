"""Stable Diffusion by engines: what its parts are called with, and that nobody sees who draws. The engines are torch's
own; others are in tests/integration/test_diffusion_engines.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.stream_batch import Call
from streamfx.engines import Eager, Engine, Part, error_of
from streamfx.engines import takeover as module
from streamfx.models.sd.engines import Checkpoint, all_parts, order, recorded, takeover, use, workload
from streamfx.models.sd.network import StableDiffusion, TextEmbedding
from streamfx.models.sd.parts import parts
from streamfx.models.sd.stream import SdStream, quicker
from tests.unit.models.sdkit import checkpoint, tiny_vae, unet
from tests.unit.models.test_sd_stream import LOOK, Words, picture, stream
from tests.unit.models.test_tiny_takeover import Swap

pytestmark = pytest.mark.filterwarnings("ignore:.*hf_hub_download:UserWarning")

FULL = replace(LOOK, steps=3, guidance=Guidance("full", 2.0))


class Counted:
    """An engine that is ready for some shapes, and how often it ran."""

    def __init__(self, part: Part, rows: tuple[int, ...] = tuple(range(99))) -> None:
        self._engine, self._rows = Eager(part), rows
        self.name = "counted"
        self.calls = 0

    def takes(self, *given: Tensor) -> bool:
        return len(given[0]) in self._rows

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        assert self.takes(*given)
        self.calls += 1
        return self._engine(*given)


def shown(subject: SdStream, first: int, last: int, level: int = 0) -> Iterator[Tensor]:
    for n in range(first, last):
        given = subject.step(picture(n)[None], [float(n)], quicker(FULL, level))
        if given is not None:
            yield given[0]


def played(subject: SdStream) -> list[Tensor]:
    """Filling, full, at cheaper levels, and anew."""
    out = [*shown(subject, 0, 5), *shown(subject, 5, 8, 1), *shown(subject, 8, 10, 2)]
    subject.reset()
    return [*out, *shown(subject, 10, 14)]


@pytest.mark.parametrize("rows", [tuple(range(9)), (1, 2, 4)])
def test_nobody_sees_who_draws(rows: tuple[int, ...]) -> None:
    plain, changed = stream(), stream()
    engines = {name: Counted(part, rows) for name, part in all_parts(changed.model).items()}
    assert set(engines) == {"encode", "denoise", "decode"}
    use(changed, engines)
    wanted, found = played(plain), played(changed)
    assert len(wanted) == 10
    assert error_of(found, wanted) < 1e-4
    # Five calls have six rows.
    assert engines["denoise"].calls == (14 if len(rows) == 9 else 9)
    assert engines["encode"].calls == 14
    assert engines["decode"].calls == 10


def test_one_with_two_text_encoders() -> None:
    model = StableDiffusion(unet(wide=True), tiny_vae(), "cpu", torch.float32)
    found = parts(model.unet, model.vae)
    with recorded(SdStream(model, Words())) as given:
        model.set_prompt(TextEmbedding(torch.zeros(77, 64), torch.zeros(16)))
        model(torch.zeros(3, 2, 4, 8, 8), torch.zeros(3), Call((0, 1, 2), 2))
    (some,) = given["denoise"]
    found["denoise"].check(some)


def test_the_full_autoencoder_stays_in_torch() -> None:
    assert set(parts(unet(), AutoencoderKL(block_out_channels=(8,), norm_num_groups=4))) == {"denoise"}


def known(folder: Path) -> Checkpoint:
    return Checkpoint(str(folder), str(folder / "taesd"), [], "cpu", "float32", True)


def rows_of(some: list[tuple[Tensor, ...]]) -> list[int]:
    return sorted(len(given[0]) for given in some)


def test_all_shapes_that_a_stream_comes_to_use_are_asked_for(tmp_path: Path) -> None:
    wanted = order(known(checkpoint(tmp_path)), (64, 64), (1, 2), 3, "full", "onnxruntime", 1)
    assert json.loads(json.dumps(asdict(wanted))) == asdict(wanted)
    work = wanted.made()
    samples = work.samples(())
    # Unconditional rows too at the best level; 2 steps and then 1 by the residual at the others.
    assert rows_of(samples["denoise"]) == [1, 2, 4, 6, 8, 12]
    assert rows_of(samples["encode"]) == rows_of(samples["decode"]) == [1, 2]
    for name, some in samples.items():
        for given in some:
            work.parts[name].check(given)
    assert str(work.usual) == "eager"
    engines: Mapping[str, Engine] = {name: Eager(part) for name, part in work.parts.items()}
    plain, changed = work.run({}), work.run(engines)
    for _ in range(3):
        wanted_picture, found = plain(), changed()
    assert error_of([found[0]], [wanted_picture[0]]) < 1e-4  # type: ignore[index]


def test_half_precision_is_held_against_single(tmp_path: Path) -> None:
    half = replace(known(checkpoint(tmp_path)), dtype="bfloat16")
    about = order(half, (64, 64), (1,), 1, "none", "openvino-bf16", 1).given
    work = workload(**about)
    assert str(work.usual) == "eager-bf16"
    assert {x.dtype for x in work.parts["denoise"].module.parameters()} == {torch.float32}
    samples = work.samples(())
    assert all(x.dtype == torch.float32 for some in samples.values() for given in some for x in given)
    assert work.run({name: Eager(part) for name, part in work.parts.items()})() is not None


def test_engines_are_taken_between_two_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    Swap.made = []
    monkeypatch.setattr(module, "HotSwap", Swap)
    subject, told = stream(), []  # type: ignore[var-annotated]
    of = Checkpoint("somewhere", "tiny", [], "cpu", "float32", True)
    taking = takeover(subject, of, order(of, (64, 64), (1,), 2, "self", "openvino", 1), told.append)
    look: Any = replace(LOOK, steps=2)
    (swap,) = Swap.made
    swap.wants_inputs = True
    for n in range(2):
        with taking.frame():
            subject.step(picture(n)[None], [float(n)], look)
        assert len(swap.given) == n, "not before a picture comes out"
    assert rows_of(swap.given[0]["denoise"]) == [2]
    swap.ready = {"denoise": Counted(all_parts(subject.model)["denoise"])}
    with taking.frame():
        subject.step(picture(2)[None], [2.0], look)
    assert swap.given == swap.given[:1]
    assert told == ["the stream runs by engines now: denoise by counted"]
    with recorded(subject) as inputs:
        subject.step(picture(3)[None], [3.0], look)
    assert set(inputs) == {"encode", "denoise", "decode"}
    taking.close()
