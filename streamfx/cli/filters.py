"""``streamfx filters``: what is installed, and one filter's parameters."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamfx.filters.registry import AnyFilter, lacking, listing, load, setup_fields, target_of


def show_filters() -> None:
    """A line for each filter; broken ones are named with what is wrong."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("filter", "takes", "what it does"):
        table.add_column(column)
    for row in listing():
        if row.filter is None:
            table.add_row(row.name, "", f"[red]broken:[/red] {on_one_line(row.error)}")
        else:
            info = row.filter.info
            hint = lacking(row.filter)
            more = f" [yellow]Not yet: {escape(hint)}[/yellow]" if hint else ""
            table.add_row(f"[bold]{row.name}[/bold]", info.takes, escape(info.summary) + more)
    console = Console()
    console.print(table)
    console.print("\nstreamfx filters NAME shows one filter's parameters.", style="dim")


def show_filter(name: str) -> None:
    """Its parameters with defaults and bounds. Raises ``UsageError`` or ``FilterError``."""
    kind = load(target_of(name))
    console = Console()
    console.print(f"[bold]{kind.name}[/bold]  {escape(kind.info.summary)}")
    console.print(_working(kind), style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("parameter", "default", "allowed", "what it does"):
        table.add_column(column)
    for field, schema in _properties(kind).items():
        star = "*" if schema.get("setup") else ""
        texts = (_default(schema), _allowed(schema), str(schema.get("description", "")))
        table.add_row(f"[bold]{field}[/bold]{star}", *map(escape, texts))
    console.print(table if table.row_count else "It has no parameters.")
    if setup_fields(kind):
        console.print("* read when the filter starts", style="dim")


def _working(kind: AnyFilter) -> str:
    info = kind.info
    counts = info.blocks or (info.block,)
    blocks = " or ".join(str(count) for count in counts) + (" frames" if max(counts) > 1 else " frame")
    sizes = ", ".join(f"{w}x{h}" for w, h in info.sizes) or "any size"
    return f"takes {info.takes}, gives {info.gives}; {blocks} at a time; {sizes}"


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
    if "examples" in schema:
        return "text, as: " + ", ".join(str(value) for value in schema["examples"])
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(_allowed(choice) for choice in schema["anyOf"])
    if bounds := _bounds(schema):
        return bounds
    kind = str(schema.get("type", ""))
    return {
        "boolean": "true, false",
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "null": "none",
    }.get(kind, kind)


def _bounds(schema: dict[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']} … {schema['maximum']}"
    words = {"minimum": "from", "exclusiveMinimum": ">", "maximum": "to", "exclusiveMaximum": "<"}
    return ", ".join(f"{word} {schema[key]}" for key, word in words.items() if key in schema)


def _default(schema: dict[str, Any]) -> str:
    if "default" not in schema:
        return ""
    value = schema["default"]
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)


def on_one_line(text: str) -> str:
    """``text`` to be shown as it is, whatever a plugin has put into it."""
    return escape(" ".join(text.split()))
