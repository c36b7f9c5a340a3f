"""The restyler's autoencoder in pieces, by engines."""

from __future__ import annotations

import pytest
import torch

from streamfx.engines import Eager, error_of
from streamfx.engines.export import export
from streamfx.engines.openvino import OpenVino
from streamfx.models.tiny.load import networks
from streamfx.models.tiny.parts import EngineCodes, parts
from streamfx.models.tiny.stream import TinyLook, TinyStream


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> EngineCodes:
    folder, found = tmp_path_factory.mktemp("parts"), parts(networks().autoencoder)
    for name, part in found.items():
        export(part, folder / name)
    return EngineCodes({name: OpenVino(part, folder / name) for name, part in found.items()}, torch.float32)


def test_pieces_are_the_whole() -> None:
    codes = networks().autoencoder
    pictures = torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1
    style = torch.randn(1, codes.size.style)
    cut = EngineCodes({name: Eager(part) for name, part in parts(codes).items()}, torch.float32)
    with torch.inference_mode():
        seen, ours = codes.features(pictures), cut.features(pictures)
        latents = codes.latents(seen)
        assert error_of([cut.latents(ours)], [latents]) < 1e-5
        # As well with latents of a smaller picture.
        for some in (latents, latents[..., :4, :6]):
            assert error_of([cut.decode(some, ours, style)], [codes.decode(some, seen, style)]) < 1e-5


def test_the_stream_is_the_same_when_engines_take_over(engines: EngineCodes) -> None:
    found = networks()
    with torch.inference_mode():
        look = TinyLook(found.dit.style(named=torch.tensor([0]))[0], side=64)
    plain, changed = (TinyStream(found.autoencoder, found.dit) for _ in range(2))
    base = torch.rand(3, 104, 136, generator=torch.Generator().manual_seed(2)) * 2 - 1
    for n in range(6):
        if n == 2:
            changed.codes = engines
        size = (96, 128) if n < 4 else (80, 80)
        picture = base[:, n : n + size[0], n : n + size[1]]
        wanted, ours = plain.step(picture, n / 30, look), changed.step(picture, n / 30, look)
        assert wanted is not None
        assert ours is not None
        assert ours[1] == n / 30
        assert error_of([ours[0]], [wanted[0]]) < 1e-3
