"""``streamfx filters``: what is installed, and one filter's parameters."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from streamfx.filters.registry import AnyFilter, listing, load, target_of


def show_filters() -> None:
    """A line for each filter; broken ones are named with what is wrong."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("filter", "takes", "what it does"):
        table.add_column(column)
    for row in listing():
        if row.filter is None:
            table.add_row(row.name, "", f"[red]broken:[/red] {row.error}")
        else:
            info = row.filter.info
            table.add_row(f"[bold]{row.name}[/bold]", info.takes, info.summary)
    console = Console()
    console.print(table)
    console.print("\nstreamfx filters NAME shows one filter's parameters.", style="dim")


def show_filter(name: str) -> None:
    """Its parameters with defaults and bounds. Raises ``UsageError`` or ``FilterError``."""
    kind = load(target_of(name))
    console = Console()
    console.print(f"[bold]{kind.name}[/bold]  {kind.info.summary}")
    console.print(_working(kind), style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("parameter", "default", "allowed", "what it does"):
        table.add_column(column)
    for field, schema in _properties(kind).items():
        table.add_row(
            f"[bold]{field}[/bold]", str(schema.get("default", "")), _allowed(schema), schema.get("description", "")
        )
    console.print(table if table.row_count else "It has no parameters.")


def _working(kind: AnyFilter) -> str:
    info = kind.info
    sizes = ", ".join(f"{w}x{h}" for w, h in info.sizes) or "any size"
    return f"takes {info.takes}, gives {info.gives}; {info.block} frame(s) at a time; {sizes}"


def _properties(kind: AnyFilter) -> dict[str, dict[str, Any]]:
    schema = kind.params_type.model_json_schema()
    definitions = schema.get("$defs", {})
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    return {name: _resolved(item, definitions) for name, item in properties.items()}


def _resolved(item: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = item.get("$ref", "").rpartition("/")[2]
    return {**definitions.get(reference, {}), **item}


def _allowed(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None or high is not None:
        return f"{'' if low is None else low} … {'' if high is None else high}".strip()
    kind = str(schema.get("type", ""))
    return {"boolean": "true, false", "integer": "a whole number", "number": "a number", "string": "text"}.get(
        kind, kind
    )
