"""The ring and its policies against slow, obvious references that keep every frame in lists."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamfx.diffusion.attention import attend
from streamfx.diffusion.kv_cache import AdaptiveSink, CacheSize, EmaSink, LayerCache, Policy, Rolling, Sink, TempCache
from streamfx.diffusion.kv_store import Store
from streamfx.diffusion.rope import Rope3D

GRID = (2, 3)
TOKENS, HEADS, DIM = 6, 2, 12

SIZES = st.tuples(st.integers(0, 3), st.integers(1, 4))


def frame() -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of one frame: ``(S, H, D)``."""
    q, k, v = (torch.randn(TOKENS, HEADS, DIM) for _ in range(3))
    return q, k, v


def turned(x: Tensor, position: int, rope_dim: int) -> Tensor:
    """``(S, H, D)`` turned by frame, number by number."""
    out = x.clone()
    for pair in range(rope_dim // 2):
        angle = position * 10_000.0 ** (-2 * pair / rope_dim)
        a, b = x[..., 2 * pair], x[..., 2 * pair + 1]
        out[..., 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
        out[..., 2 * pair + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def slow_attention(q: Tensor, frames: list[tuple[Tensor, Tensor]], rope_dim: int) -> Tensor:
    """The newest of ``frames`` attends to all, in the order of the list, position by position."""
    keys = torch.cat([turned(k, n, rope_dim) for n, (k, _) in enumerate(frames)])
    values = torch.cat([v for _, v in frames])
    query = turned(q, len(frames) - 1, rope_dim)
    out = torch.empty_like(q)
    for head in range(HEADS):
        weights = torch.softmax(query[:, head] @ keys[:, head].T / math.sqrt(DIM), dim=-1)
        out[:, head] = weights @ values[:, head]
    return out


Reference = Callable[[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor], int, int], None]


def play(policy: Policy, keep: Reference, sinks: int, window: int, length: int, seed: int) -> None:
    """The same frames through the ring and through a list in order of time."""
    torch.manual_seed(seed)
    rope = Rope3D(DIM, GRID, sinks + window + 1)
    cache = LayerCache(CacheSize(1, sinks, window, TOKENS, HEADS, DIM), policy)
    kept: list[tuple[Tensor, Tensor]] = []
    for _ in range(length):
        q, k, v = frame()
        found = attend(q[None], k[None], v[None], cache.past(), rope)[0]
        assert torch.allclose(found, slow_attention(q, [*kept, (k, v)], rope.time_dim), atol=1e-5)
        cache.append(k, v)
        keep(kept, (k, v), sinks, window)
        assert cache.past().here == len(kept)


def keep_sinks(kept: list[tuple[Tensor, Tensor]], new: tuple[Tensor, Tensor], sinks: int, window: int) -> None:
    if len(kept) == sinks + window:
        del kept[sinks]
    kept.append(new)


@given(SIZES, st.integers(1, 14), st.integers(0, 1 << 30))
@settings(max_examples=40, deadline=None)
def test_rolling_and_sinks(size: tuple[int, int], length: int, seed: int) -> None:
    play(Sink() if size[0] else Rolling(), keep_sinks, *size, length, seed)


@given(st.integers(1, 3), st.integers(1, 4), st.floats(-1, 1), st.integers(0, 1 << 30))
@settings(max_examples=40, deadline=None)
def test_adaptive_sinks(sinks: int, window: int, threshold: float, seed: int) -> None:
    def cosine(a: Tensor, b: Tensor) -> float:
        x, y = a.mean(0).flatten(), b.mean(0).flatten()
        return float(x @ y / (x.norm() * y.norm()))

    def keep(kept: list[tuple[Tensor, Tensor]], new: tuple[Tensor, Tensor], sinks: int, window: int) -> None:
        if len(kept) >= sinks:
            alike = [(cosine(k, new[0]) + cosine(v, new[1])) / 2 for k, v in kept[:sinks]]
            if min(alike) < threshold:
                kept[alike.index(min(alike))] = new
                return
        keep_sinks(kept, new, sinks, window)

    play(AdaptiveSink(threshold), keep, sinks, window, 12, seed)


@given(st.integers(1, 3), st.integers(1, 4), st.floats(0, 1), st.integers(0, 1 << 30))
@settings(max_examples=40, deadline=None)
def test_ema_sinks(sinks: int, window: int, share: float, seed: int) -> None:
    evictions = 0

    def keep(kept: list[tuple[Tensor, Tensor]], new: tuple[Tensor, Tensor], sinks: int, window: int) -> None:
        nonlocal evictions
        if len(kept) == sinks + window:
            (k, v), (sink_k, sink_v) = kept[sinks], kept[evictions % sinks]
            kept[evictions % sinks] = share * sink_k + (1 - share) * k, share * sink_v + (1 - share) * v
            evictions += 1
        keep_sinks(kept, new, sinks, window)

    play(EmaSink(share), keep, sinks, window, 12, seed)


class SlowTempCache:
    """Token by token, in lists: what ``TempCache`` has to match."""

    def __init__(self, sinks: list[tuple[Tensor, Tensor]], alike: float, most: int) -> None:
        self.alike, self.most = alike, most
        self.keys = [key for k, _ in sinks for key in k]
        self.values = [value for _, v in sinks for value in v]
        self.counts = [1.0] * len(self.keys)
        self.age = [0] * len(self.keys)

    def leaving(self, key: Tensor, value: Tensor) -> None:
        self.age = [age + 1 for age in self.age]
        cosines = [[float(torch.cosine_similarity(k.flatten(), s.flatten(), 0)) for s in self.keys] for k in key]
        joins: dict[int, list[int]] = {}
        new = []
        for n, row in enumerate(cosines):
            best = row.index(max(row))
            if row[best] >= self.alike:
                joins.setdefault(best, []).append(n)
                self.age[best] = 0
            else:
                new.append(n)
        for place, tokens in joins.items():
            count = self.counts[place]
            for store, more in ((self.keys, key), (self.values, value)):
                store[place] = (count * store[place] + more[tokens].sum(0)) / (count + len(tokens))
            self.counts[place] = min(self.most, count + len(tokens))
        oldest = sorted(range(len(self.age)), key=lambda place: -self.age[place])
        for n, place in zip(new, oldest, strict=False):
            self.keys[place], self.values[place], self.counts[place], self.age[place] = key[n], value[n], 1.0, 0


@given(st.integers(1, 3), st.integers(1, 3), st.floats(0.2, 0.99), st.integers(1, 5), st.integers(0, 1 << 30))
@settings(max_examples=25, deadline=None)
def test_what_repeats_is_merged(sinks: int, window: int, alike: float, most: int, seed: int) -> None:
    torch.manual_seed(seed)
    cache = LayerCache(CacheSize(2, sinks, window, TOKENS, HEADS, DIM), TempCache(alike, most))
    scenes = [frame()[1:] for _ in range(3)]
    sequence = []
    for n in range(sinks + window + 8):
        k, v = scenes[n % 3]
        near = k + 0.6 * torch.rand(TOKENS, 1, 1) * torch.randn_like(k), v + 0.1 * torch.randn_like(v)
        sequence.append(near)
    slow = SlowTempCache(sequence[:sinks], alike, most)
    for n, (k, v) in enumerate(sequence):
        if n >= sinks + window:
            slow.leaving(*sequence[n - window])
        cache.append(k, v, 1)
    past = cache.past(1)
    assert past.log_counts is not None
    assert torch.allclose(past.keys[:sinks].flatten(0, 1), torch.stack(slow.keys), atol=1e-5)
    assert torch.allclose(past.values[:sinks].flatten(0, 1), torch.stack(slow.values), atol=1e-5)
    counts = torch.tensor(slow.counts, dtype=torch.float32)
    assert torch.allclose(past.log_counts[:sinks].flatten().exp(), counts, atol=1e-4)
    assert float(past.log_counts[sinks:].abs().max()) == 0
    assert cache.past(0).here == 0


def test_merged_tokens_count_as_all_they_stand_for() -> None:
    """A still picture: attention with the merged cache ≡ attention to every repetition."""
    torch.manual_seed(6)
    still, (q, k, v) = frame(), frame()
    cache = LayerCache(CacheSize(1, 1, 2, TOKENS, HEADS, DIM), TempCache())
    rope = Rope3D(DIM, GRID, 4)
    for _ in range(9):
        cache.append(*still[1:])
    found = attend(q[None], k[None], v[None], cache.past(), rope)[0]
    keys = [rope.time(still[1][None], torch.tensor([at]))[0] for at in [0] * 7 + [1, 2]]
    keys.append(rope.time(k[None], torch.tensor([3]))[0])
    query = rope.time(q[None], torch.tensor([3]))[0]
    whole = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(0, 1) for x in (query, torch.cat(keys), torch.cat([still[2]] * 9 + [v])))
    )
    assert torch.allclose(found, whole.transpose(0, 1), atol=1e-5)
    cache.reset()
    cache.append(*still[1:])
    assert cache.past().log_counts is None


def test_a_sink_that_is_anchored() -> None:
    torch.manual_seed(0)
    cache = LayerCache(CacheSize(1, 1, 2, TOKENS, HEADS, DIM))
    reference = frame()
    cache.anchor(reference[1], reference[2])
    for _ in range(5):
        cache.append(*frame()[1:])
    past = cache.past()
    assert torch.equal(past.keys[0], reference[1])
    assert past.positions.tolist()[0] == 0
    generated = frame()
    cache.anchor(generated[1], generated[2])
    assert torch.equal(cache.past().values[0], generated[2])
    with pytest.raises(ValueError, match="cannot be written"):
        cache.anchor(generated[1], generated[2], sink=1)


def test_rows_know_nothing_of_each_other() -> None:
    torch.manual_seed(0)
    cache = LayerCache(CacheSize(3, 1, 2, TOKENS, HEADS, DIM))
    alone = LayerCache(CacheSize(1, 1, 2, TOKENS, HEADS, DIM))
    for n in range(7):
        for row in range(3):
            _, k, v = frame()
            if row == 1 and n % 2:
                continue
            cache.append(k, v, row)
            if row == 2:
                alone.append(k, v)
    assert torch.equal(cache.past(2).keys, alone.past().keys)
    assert torch.equal(cache.past(2).positions, alone.past().positions)
    cache.reset(2)
    assert cache.past(2).here == 0
    assert cache.past(1).here == 3


@given(SIZES, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_positions_are_a_window(size: tuple[int, int], length: int) -> None:
    sinks, window = size
    cache = LayerCache(CacheSize(1, sinks, window, 1, 1, 6))
    for n in range(length):
        cache.append(torch.full((1, 1, 6), float(n)), torch.zeros(1, 1, 6))
    past = cache.past()
    assert sorted(past.positions.tolist()) == list(range(min(length, sinks + window)))
    in_order = past.keys[past.positions.argsort(), 0, 0, 0].tolist()
    expected = list(range(min(length, sinks))) + list(range(max(sinks, length - window), length))
    assert in_order == [float(n) for n in expected]


def test_nothing_is_allocated_in_a_steady_stream() -> None:
    cache = LayerCache(CacheSize(1, 1, 3, TOKENS, HEADS, DIM))
    for _ in range(5):
        cache.append(*frame()[1:])
    memory = cache.past().keys.untyped_storage().data_ptr()
    for _ in range(20):
        cache.append(*frame()[1:])
        assert cache.past().keys.untyped_storage().data_ptr() == memory


@pytest.mark.parametrize(("storage", "error"), [("same", 0.0), ("int8", 1 / 250), ("fp8", 1 / 15)])
def test_storage(storage: str, error: float) -> None:
    torch.manual_seed(0)
    store = Store((1, 2, 5, 3, 64), torch.float32, storage=storage)  # type: ignore[arg-type]
    value = torch.randn(5, 3, 64) * torch.logspace(-3, 3, 5)[:, None, None]
    store.write(0, 1, value)
    difference = (store.read(0, 1) - value).abs()
    largest = value.abs().amax(-1, keepdim=True)
    assert float((difference / largest).max()) <= error
    assert float(store.read(0, 0).abs().max()) == 0
    plain = Store((1, 2, 5, 3, 64), torch.float32).bytes
    assert store.bytes < 0.3 * plain or storage == "same"


def test_zeros_survive_quantisation() -> None:
    store = Store((1, 1, 2, 1, 8), torch.bfloat16, storage="int8")
    store.write(0, 0, torch.zeros(2, 1, 8, dtype=torch.bfloat16))
    assert torch.equal(store.read(0, 0), torch.zeros(2, 1, 8, dtype=torch.bfloat16))


def test_cached_attention_is_block_causal_attention() -> None:
    """Frame by frame with the cache ≡ all frames at once with the mask, while nothing has left the window."""
    torch.manual_seed(3)
    length = 6
    rope = Rope3D(DIM, GRID, length + 1)
    cache = LayerCache(CacheSize(1, 0, length, TOKENS, HEADS, DIM))
    q, k, v = (torch.randn(length, TOKENS, HEADS, DIM) for _ in range(3))
    q, k = rope.space(q), rope.space(k)
    found = []
    for n in range(length):
        found.append(attend(q[n : n + 1], k[n : n + 1], v[n : n + 1], cache.past(), rope))
        cache.append(k[n], v[n])
    here = torch.arange(length)
    turned_q, turned_k = (rope.time(x, here).flatten(0, 1).transpose(0, 1) for x in (q, k))
    of_frame = here.repeat_interleave(TOKENS)
    mask = of_frame[:, None] >= of_frame[None]
    whole = torch.nn.functional.scaled_dot_product_attention(turned_q, turned_k, v.flatten(0, 1).transpose(0, 1), mask)
    assert torch.allclose(torch.cat(found).flatten(0, 1), whole.transpose(0, 1), atol=1e-5)


def test_distance_is_all_that_matters() -> None:
    """Attention with positions in the window ≡ with positions in the stream: rotation is relative."""
    torch.manual_seed(4)
    rope = Rope3D(DIM, GRID, 2000)
    q, k = torch.randn(1, TOKENS, HEADS, DIM), torch.randn(1, TOKENS, HEADS, DIM)
    near = torch.einsum("nshd,nthd->hst", rope.time(q, torch.tensor([5])), rope.time(k, torch.tensor([2])))
    far = torch.einsum("nshd,nthd->hst", rope.time(q, torch.tensor([1905])), rope.time(k, torch.tensor([1902])))
    assert torch.allclose(near, far, atol=1e-3)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", [Sink(), AdaptiveSink(0.0), EmaSink(), TempCache()])
def test_ten_thousand_frames(policy: Policy) -> None:
    """Memory and positions after ten thousand frames are what they were after ten."""
    torch.manual_seed(5)
    rope = Rope3D(DIM, GRID, 5)
    cache = LayerCache(CacheSize(1, 2, 2, TOKENS, HEADS, DIM), policy)
    frames = [frame() for _ in range(50)]
    memory = cache.keys.bytes + cache.values.bytes
    for n in range(10_000):
        q, k, v = frames[n % 50]
        cache.append(k, v)
        if n in {100, 9_950}:
            q, k, v = frames[0]
            out = attend(q[None], k[None], v[None], cache.past(), rope)
            assert torch.isfinite(out).all()
            assert sorted(cache.past().positions.tolist()) == [0, 1, 2, 3]
    assert cache.keys.bytes + cache.values.bytes == memory


@pytest.mark.parametrize("bad", [(0, 0, 1), (1, 0, 0), (1, -1, 1)])
def test_sizes_that_make_no_cache(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        CacheSize(*bad, 1, 1, 6)


def test_heads_that_cannot_be_split() -> None:
    for dim in (4, 7):
        with pytest.raises(ValueError, match="head size"):
            Rope3D(dim, GRID, 3)
