"""Filters one after the other, as one filter: ``avatar+restyle``.

All of a chain runs in one process, so pictures are not copied from one to the next; if one of them crashes, all of them
start again. The parameters are those of all of them, each after its filter's name and a dot.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo

from streamfx.core.errors import UsageError
from streamfx.filters.base import Block, Context, Filter, FilterInfo, Params

if TYPE_CHECKING:
    from streamfx.filters.host import FilterHost

SEPARATOR = "+"
LONGEST = 4
"""Filters in a chain."""

_LARGEST_BLOCK = 16


class ChainParams(Params):
    """The parameters of all filters of a chain."""

    types: ClassVar[tuple[tuple[str, type[Params]], ...]] = ()
    """What the names of a filter's parameters begin with, and their type; in order."""

    def split(self) -> list[dict[str, Any]]:
        """Each filter's own parameters, as JSON values."""
        values = self.model_dump(mode="json")
        return [{key: values[before + key] for key in kind.model_fields} for before, kind in self.types]

    @model_validator(mode="after")
    def _each_for_itself(self) -> Self:
        for (before, kind), values in zip(self.types, self.split(), strict=True):
            try:
                kind.model_validate(values)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                raise ValueError(f"{before.rstrip('.')}: {first['msg'].removeprefix('Value error, ')}") from error
        return self


class _Stage:
    """A filter of a chain: it is given as many frames at a time as it takes, and those left over wait."""

    def __init__(self, host: FilterHost, info: FilterInfo) -> None:
        self._host = host
        self._levels = info.quality_levels
        self._hears = info.takes == "audio"
        self._counts = _counts(info)
        self._waiting: deque[tuple[float, NDArray[np.uint8]]] = deque()
        self._given: dict[str, Any] | None = None

    def configure(self, params: dict[str, Any]) -> None:
        if params != self._given:
            self._given = params
            self._host.configure(params)

    def run(self, given: Block, scale: float, most: int) -> Block:
        """What it makes of ``given``, at most ``most`` pictures."""
        level = min(given.quality, self._levels - 1)
        sound = (given.audio, given.audio_pts) if self._hears else (None, 0.0)
        count = len(given.pts)
        if not self._waiting and count in self._counts:
            return self._host.run(Block(given.frames, sound[0], given.pts, level, sound[1]), scale)
        self._waiting.extend(zip(given.pts, given.frames.copy(), strict=True))
        done: list[Block] = []
        while taken := self._next(most - sum(len(block.pts) for block in done)):
            pts, frames = zip(*taken, strict=True)
            done.append(self._host.run(Block(np.stack(frames), sound[0], pts, level, sound[1]), scale))
            sound = (None, 0.0)
        if not any(block.pts for block in done):
            return Block()
        pictures = np.concatenate([block.frames for block in done])
        return Block(pictures, pts=tuple(itertools.chain.from_iterable(block.pts for block in done)))

    def notes(self) -> list[str]:
        return self._host.notes()

    def reset(self) -> None:
        self._waiting.clear()
        self._host.reset()

    def close(self) -> None:
        self._host.close()

    def _next(self, most: int) -> list[tuple[float, NDArray[np.uint8]]]:
        there = min(most, len(self._waiting))
        count = next((count for count in self._counts if count <= there), 0)
        return [self._waiting.popleft() for _ in range(count)]


class Chain(Filter[ChainParams]):
    """What ``chained`` makes subclasses of, one a chain."""

    stages: ClassVar[tuple[type[Filter[Any]], ...]] = ()

    @classmethod
    def parts(cls) -> list[tuple[str, type[Filter[Any]]]]:
        """The filters, each after what the names of its parameters begin with."""
        return list(zip(_numbered([kind.name for kind in cls.stages]), cls.stages, strict=True))

    def setup(self, context: Context, params: ChainParams) -> None:
        # The host finds filters by the registry, which knows this module.
        from streamfx.filters.host import FilterHost, FilterSpec

        self._size = context.size
        self._tell = context.tell
        self._stages: list[_Stage] = []
        for kind, values in zip(self.stages, params.split(), strict=True):
            hears = kind.info.takes == "audio"
            target = f"{kind.__module__}:{kind.__qualname__}"
            spec = FilterSpec(target, context.size, context.fps, context.threads, values, hears, context.live)
            try:
                self._stages.append(_Stage(FilterHost(spec), kind.info))
            except BaseException:
                self.close()
                raise

    def process(self, block: Block, params: ChainParams) -> Block:
        scale = block.frames.shape[2] / self._size[0]
        most, passed = len(block.pts), block
        for stage, values in zip(self._stages, params.split(), strict=True):
            stage.configure(values)
            passed = stage.run(passed, scale, most)
            for note in stage.notes():
                self._tell(note)
            if not passed.pts:
                return Block()
            passed = Block(passed.video, None, passed.pts, block.quality)
        return block.with_video(passed.frames, passed.pts)

    def reset(self) -> None:
        for stage in self._stages:
            stage.reset()

    def close(self) -> None:
        for stage in self._stages:
            stage.close()


@lru_cache(maxsize=64)
def chained(kinds: tuple[type[Filter[Any]], ...]) -> type[Chain]:
    """One filter of several, in order. Raises ``UsageError`` if they do not go together."""
    names = [kind.name for kind in kinds]
    name = SEPARATOR.join(names)
    if len(kinds) > LONGEST:
        raise UsageError(f"{name} is a chain of {len(kinds)} filters; {LONGEST} are the most")
    for kind in kinds:
        if kind.info.gives != "video":
            raise UsageError(f"filter {kind.name!r} gives no pictures, so it cannot be part of a chain")
    for kind in kinds[1:]:
        if kind.info.takes == "audio":
            raise UsageError(f"filter {kind.name!r} is driven by sound and sees no picture: it can only be the first")
    before = list(_numbered(names))
    fields: dict[str, Any] = {}
    for prefix, kind in zip(before, kinds, strict=True):
        for key, field in kind.params_type.model_fields.items():
            fields[prefix + key] = (field.annotation, _titled(field, kind.name, key))
    params: Any = create_model(f"Params of {name}", __base__=ChainParams, **fields)
    params.types = tuple(zip(before, (kind.params_type for kind in kinds), strict=True))
    return type("Chain", (Chain,), {"name": name, "info": _info(kinds), "params_type": params, "stages": kinds})


def _numbered(names: Sequence[str]) -> Iterator[str]:
    """What the names of each filter's parameters begin with; the second of two alike is ``blur-2.``."""
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield f"{name}." if seen[name] == 1 else f"{name}-{seen[name]}."


def _titled(field: FieldInfo, name: str, key: str) -> FieldInfo:
    """The field, with the filter's name before its title. Bounds are metadata of the field, and stay."""
    title = field.title or key.replace("_", " ")
    return field.merge_field_infos(field, title=f"{name}: {title[:1].lower() + title[1:]}")


def _info(kinds: Sequence[type[Filter[Any]]]) -> FilterInfo:
    infos = [kind.info for kind in kinds]
    block = math.lcm(*(info.block for info in infos))
    if block > _LARGEST_BLOCK:
        wanted = ", ".join(f"{kind.name} {kind.info.block}" for kind in kinds)
        raise UsageError(f"the filters of a chain want blocks that do not go together: {wanted} frames")
    known = {count for info in infos for count in _counts(info)} | {block}
    blocks = sorted(n for n in known if all(any(n % count == 0 for count in _counts(info)) for info in infos))
    return FilterInfo(
        summary=", then ".join(kind.name for kind in kinds) + ".",
        takes=infos[0].takes,
        lookahead=sum(info.lookahead for info in infos),
        block=block,
        blocks=tuple(blocks) if len(blocks) > 1 else (),
        quality_levels=max(info.quality_levels for info in infos),
        min_scale=max(info.min_scale for info in infos),
        needs=tuple(dict.fromkeys(one for info in infos for one in info.needs)),
        install=" && ".join(dict.fromkeys(info.install for info in infos if info.install)),
    )


def _counts(info: FilterInfo) -> list[int]:
    """Frames a filter takes at a time, most first."""
    return sorted(info.blocks or (info.block,), reverse=True)
