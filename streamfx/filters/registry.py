"""Finds filters: the entry points of group ``streamfx.filters``, a class named ``module:Class``, or several of them
with ``+`` between, which make one (``chain``)."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError

from streamfx.core.errors import FilterError, StreamFXError, UsageError
from streamfx.filters.base import Filter, Params
from streamfx.filters.chain import SEPARATOR, chained

GROUP = "streamfx.filters"

AnyFilter = type[Filter[Any]]


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list of filters: either ``filter`` or ``error`` is set. ``target`` is ``module:Class``."""

    name: str
    target: str
    filter: AnyFilter | None = None
    error: str = ""


def load(target: str) -> AnyFilter:
    """Imports ``module:Class``, or makes a chain of several. Raises ``UsageError`` if there is no such module, or they
    do not go together, ``FilterError`` if it gives no usable filter."""
    if SEPARATOR in target:
        return chained(tuple(load(part) for part in target.split(SEPARATOR)))
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"filter {target}: there is no module {module_name!r}; check its name, and PYTHONPATH"
            ) from error
        raise FilterError(f"filter {target} cannot be loaded: {error}") from error
    except (Exception, SystemExit) as error:
        raise FilterError(f"filter {target} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Filter)):
        raise FilterError(f"{target} is not a filter: it must be a subclass of streamfx.filters.Filter")
    if not found.name or found.process is Filter.process:
        raise FilterError(f"filter {target} is incomplete: it needs a name and a process method")
    return found


def target_of(name: str) -> str:
    """Returns ``module:Class`` for a filter's name, or several of them. Raises ``UsageError`` naming the nearest known
    one."""
    if SEPARATOR in name:
        return SEPARATOR.join(target_of(part.strip()) for part in name.split(SEPARATOR))
    if ":" in name:
        return name
    points = _points()
    if name in points:
        return points[name].value
    known = sorted(points)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}"
    raise UsageError(f"unknown filter {name!r}; {hint} (streamfx filters lists them)")


def listing() -> list[Listed]:
    """Every installed filter by name; a broken one comes with its error and hides no other."""
    rows: list[Listed] = []
    for name, point in sorted(_points().items()):
        try:
            rows.append(Listed(name, point.value, filter=load(point.value)))
        except StreamFXError as error:
            rows.append(Listed(name, point.value, error=str(error)))
    return rows


def parse_params(filter_type: AnyFilter, values: dict[str, Any], base: Params | None = None) -> Params:
    """Validates ``values`` (strings from a command line included) over ``base`` or the defaults.

    Raises ``UsageError``: one sentence with the parameter, what is wrong and what is allowed.
    """
    known = filter_type.params_type.model_fields
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known) or 'none'}"
            raise UsageError(f"filter {filter_type.name!r} has no parameter {key!r}; {hint}")
    merged = (base.model_dump() if base else {}) | values
    try:
        return filter_type.params_type.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "parameters"
        raise UsageError(
            f"filter {filter_type.name!r}: {where} = {first['input']!r} is not possible: "
            f"{first['msg'].lower().removeprefix('value error, ')}"
        ) from error


def lacking(filter_type: AnyFilter) -> str:
    """What is to be installed before this filter can run here, as a sentence; empty if nothing is."""
    info = filter_type.info
    missing = [name for name in info.needs if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return f"it needs {', '.join(missing)}; install with: {info.install or 'pip install ' + ' '.join(missing)}"


def setup_fields(filter_type: AnyFilter) -> frozenset[str]:
    """The parameters that are read only when the filter is set up."""
    found = set()
    for name, field in filter_type.params_type.model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("setup"):
            found.add(name)
    return frozenset(found)


def parse_changes(filter_type: AnyFilter, values: dict[str, Any], base: Params | None) -> Params:
    """``parse_params`` for a filter that runs. Raises ``UsageError`` also for what is read only at its set-up."""
    params = parse_params(filter_type, values, base)
    before = base or parse_params(filter_type, {})
    for name in sorted(setup_fields(filter_type) & values.keys()):
        if getattr(params, name) != getattr(before, name):
            raise UsageError(
                f"filter {filter_type.name!r} reads {name} only when it starts; start it anew to change that"
            )
    return params


def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
