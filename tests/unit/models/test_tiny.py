"""The embedded restyler's networks, untrained: shapes, and that streaming is what was trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streamfx.diffusion.guidance import Guidance
from streamfx.diffusion.kv_cache import CacheSize, LayerCache
from streamfx.diffusion.rope import Rope3D
from streamfx.models.tiny.autoencoder import SHRINK, Autoencoder, AutoencoderSize
from streamfx.models.tiny.dit import Cached, TinyDiT, TinySize, Whole
from streamfx.models.tiny.stream import TinyLook, TinyStream, working_size

SIZE = TinySize(dim=32, heads=2, layers=2, channels=4, named=5)
GRID = (2, 3)


def dit() -> TinyDiT:
    torch.manual_seed(0)
    model = TinyDiT(SIZE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def latents(rows: int, frames: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, frames, SIZE.channels, 2 * GRID[0], 2 * GRID[1], generator=generator)


@torch.no_grad()
def test_pictures_to_latents_and_back() -> None:
    model = Autoencoder(AutoencoderSize(4, (8, 12, 16), style=6)).eval()
    pictures, plain = torch.rand(2, 3, 48, 64) * 2 - 1, torch.zeros(2, 6)
    found, features = model.encode(pictures)
    assert tuple(found.shape) == (2, 4, 48 // SHRINK, 64 // SHRINK)
    drawn = model.decode(found, features, plain)
    assert drawn.shape == pictures.shape
    assert float(drawn.abs().max()) <= 1
    model.mean.fill_(3.0)
    model.deviation.fill_(2.0)
    scaled, _ = model.encode(pictures)
    assert torch.allclose(scaled, (found - 3) / 2, atol=1e-5)
    assert torch.allclose(model.decode(scaled, features, plain), drawn, atol=1e-5)
    large = torch.rand(2, 3, 96, 128) * 2 - 1
    drawn = model.decode(found, model.encoder.features(large), plain)
    assert drawn.shape == large.shape, "latents of a smaller picture"


@pytest.mark.parametrize(("sinks", "window", "frames"), [(0, 2, 5), (1, 3, 5), (1, 1, 6), (2, 4, 4)])
@torch.no_grad()
def test_frame_after_frame_is_the_whole_clip_of_the_training(sinks: int, window: int, frames: int) -> None:
    """But for places in time once frames have left the window; so only clips that fit are compared in all."""
    model, rows, tokens = dit(), 2, GRID[0] * GRID[1]
    x, source = latents(rows, frames), latents(rows, frames, 2)
    sigma, share = torch.tensor([0.9, 0.3]), torch.tensor([1.0, 0.5])
    style = model.style(named=torch.tensor([1, 4]))
    rope = Rope3D(SIZE.head_dim, GRID, frames + 1)
    whole = model(x, sigma, source, style, share, [Whole(frames, tokens, rope, sinks, window)] * SIZE.layers)
    size = CacheSize(rows, sinks, window, tokens, SIZE.heads, SIZE.head_dim)
    caches = [LayerCache(size) for _ in range(SIZE.layers)]
    for n in range(frames):
        here = slice(n, n + 1)
        seen = [Cached(cache, (0, 1), rope) for cache in caches]
        found = model(x[:, here], sigma, source[:, here], style, share, seen)
        if n <= sinks + window:
            assert torch.allclose(found, whole[:, here], atol=1e-5)


@torch.no_grad()
def test_all_that_it_is_told_counts() -> None:
    model = dit()
    rope = Rope3D(SIZE.head_dim, GRID, 4)
    see = [Whole(1, GRID[0] * GRID[1], rope, 1, 3)] * SIZE.layers

    def found(x: int = 1, source: int = 2, named: int = 0, sigma: float = 0.5, share: float = 1.0) -> Tensor:
        style = model.style(named=torch.tensor([named]))
        out = model(latents(1, 1, x), torch.tensor([sigma]), latents(1, 1, source), style, torch.tensor([share]), see)
        assert isinstance(out, Tensor)
        return out

    base = found()
    for other in (found(x=5), found(source=5), found(named=1), found(sigma=0.9), found(share=0.4)):
        assert not torch.allclose(other, base, atol=1e-4)
    assert torch.allclose(found(named=0, share=0.0), found(named=3, share=0.0), atol=1e-6), "no style is none of them"
    assert tuple(model.style(vector=torch.randn(2, 100)).shape) == (2, SIZE.dim)
    with pytest.raises(ValueError, match="a number or a vector"):
        model.style()


@torch.no_grad()
def test_untrained_it_gives_the_source() -> None:
    torch.manual_seed(0)
    model = TinyDiT(SIZE).eval()
    see = [Whole(2, GRID[0] * GRID[1], Rope3D(SIZE.head_dim, GRID, 4), 1, 3)] * SIZE.layers
    style, source = model.style(named=torch.tensor([0])), latents(1, 2, 2)
    assert torch.equal(model(latents(1, 2), torch.tensor([0.9]), source, style, torch.ones(1), see), source)


@torch.no_grad()
def test_the_past_counts_as_much_as_it_is_to() -> None:
    model, tokens = dit(), GRID[0] * GRID[1]
    rope = Rope3D(SIZE.head_dim, GRID, 5)
    style, one = model.style(named=torch.tensor([0])), torch.ones(1)

    def second(weight: float, first: int = 1) -> Tensor:
        """The second of two frames."""
        caches = [LayerCache(CacheSize(1, 1, 3, tokens, SIZE.heads, SIZE.head_dim)) for _ in range(SIZE.layers)]
        out = torch.zeros(())
        for seed in (first, 7):
            x, source = latents(1, 1, seed), latents(1, 1, seed + 20)
            out = model(x, 0.5 * one, source, style, one, [Cached(cache, (0,), rope, weight) for cache in caches])
        return out

    assert torch.allclose(second(0.0), second(0.0, first=3), atol=1e-6), "nothing of it"
    half, whole = second(0.5), second(1.0)
    assert not torch.allclose(half, whole, atol=1e-4)
    assert torch.allclose(second(0.9999), whole, atol=1e-3)
    assert float((half - whole).abs().mean()) < float((second(0.0) - whole).abs().mean())


def stream() -> TinyStream:
    torch.manual_seed(3)
    return TinyStream(Autoencoder(AutoencoderSize(4, (8, 12, 16), style=SIZE.dim)).eval(), dit())


def look(named: int = 0, **more: object) -> TinyLook:
    with torch.no_grad():
        return TinyLook(dit().style(named=torch.tensor([named]))[0], **({"side": 64} | more))  # type: ignore[arg-type]


def picture(n: int, size: tuple[int, int] = (64, 96)) -> Tensor:
    """Smooth, so that two of one ten are of one scene."""
    small = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(n // 10)) * 2 - 1
    grown = torch.nn.functional.interpolate(small, size, mode="bilinear")[0]
    return (grown + 0.02 * torch.randn(3, *size, generator=torch.Generator().manual_seed(n))).clamp(-1, 1)


def play(subject: TinyStream, numbers: range, given: TinyLook) -> list[tuple[Tensor, float] | None]:
    return [subject.step(picture(n), float(n), given) for n in numbers]


@pytest.mark.parametrize("mode", ["none", "self", "onetime", "full"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_stream_says_whose_pictures_it_gives(steps: int, mode: str) -> None:
    given = look(steps=steps, guidance=Guidance(mode, 1.5))  # type: ignore[arg-type]
    out = play(stream(), range(7), given)
    assert [None if one is None else one[1] for one in out] == [None] * (steps - 1) + [
        float(n) for n in range(8 - steps)
    ]
    last = out[-1]
    assert last is not None
    assert tuple(last[0].shape) == (3, 64, 96)
    assert bool(torch.isfinite(last[0]).all())


def test_the_same_again_and_what_differs() -> None:
    def end(given: TinyLook) -> Tensor:
        last = play(stream(), range(5), given)[-1]
        assert last is not None
        return last[0]

    base = end(look())
    assert torch.equal(end(look()), base)
    others = [look(2), look(seed=4), look(strength=0.5), look(temporal=0.0), look(steps=2)]
    assert all(not torch.allclose(end(other), base, atol=1e-4) for other in others)
    assert not torch.allclose(end(look(side=32)), base, atol=1e-4), "drawn from a smaller latent"


def test_what_is_changed_live() -> None:
    subject = stream()
    play(subject, range(3), look())
    assert [one is None for one in play(subject, range(3, 6), look(steps=2))] == [True, False, False]
    assert [one[1] for one in play(subject, range(6, 8), look(3)) if one] == [6.0, 7.0]
    assert subject.step(picture(8, (48, 80)), 8.0, look()) is not None, "another size"


def test_a_new_style_takes_nothing_from_the_past_of_the_old_one() -> None:
    subject, fresh = stream(), stream()
    play(subject, range(5), look())
    after, expected = subject.step(picture(5), 5.0, look(3)), fresh.step(picture(5), 5.0, look(3))
    assert after is not None
    assert expected is not None
    assert torch.equal(after[0], expected[0])


def test_between_those_that_the_transformer_sees() -> None:
    given = look(every=3)
    subject, whole = stream(), stream()
    out, all_seen = play(subject, range(7), given), play(whole, range(7), look())
    assert all(one is not None and one[1] == n for n, one in enumerate(out))
    same = [torch.equal(a[0], b[0]) for a, b in zip(out, all_seen, strict=True) if a and b]
    assert same[0]
    assert not any(same[1:3])
    again = play(stream(), range(4), given)[-1]
    assert again is not None
    assert out[3] is not None
    assert torch.equal(again[0], out[3][0])
    assert len(play(stream(), range(4), look(every=3, steps=2))) == 4, "with two steps each is seen"


def test_a_cut_begins_anew_and_what_stands_still_is_skipped() -> None:
    given = look(threshold=0.98)
    subject, fresh = stream(), stream()
    play(subject, range(5), given)
    after, expected = subject.step(picture(15), 15.0, given), fresh.step(picture(15), 15.0, given)
    assert after is not None
    assert expected is not None
    assert torch.equal(after[0], expected[0])
    still = [subject.step(picture(15), 16.0 + n, replace(given, threshold=0.9)) for n in range(8)]
    assert [one[1] for one in still if one] == [16.0 + n for n in range(8)]
    assert len({float(one[0].sum()) for one in still if one}) < 8, "some are the picture before"


def test_the_size_it_works_at() -> None:
    assert working_size((256, 256), 256) == (256, 256)
    assert working_size((1280, 720), 256) == (336, 192)
    assert working_size((720, 1280), 256) == (192, 336)
    assert working_size((64, 48), 256) == (64, 48), "never larger than the picture"
    assert working_size((4000, 8), 256)[1] == 16
