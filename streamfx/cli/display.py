"""What a running session looks like in a terminal, and the summary at its end."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from streamfx.cli.targets import STATE_STYLE, Targets, names_of
from streamfx.pipeline.session import Session


class Display(Protocol):
    """Something that can be brought up to date."""

    def update(self) -> None: ...


def make_display(session: Session) -> AbstractContextManager[Display]:
    """A line, and a table of the outputs, that change in place in a terminal; a line per change of state elsewhere."""
    console = Console(stderr=True)
    return _TerminalDisplay(session, console) if console.is_terminal else _LineDisplay(session, console)


def _print_notes(console: Console, notes: list[str], told: int) -> int:
    """Prints what the filter has said since the first ``told``; how many those are now."""
    for note in notes[told:]:
        console.print(f"filter: {note}", highlight=False, markup=False, soft_wrap=True)
    return len(notes)


class _LineDisplay:
    """For logs and pipes: says what changes, and how it stands every ten seconds."""

    _EVERY = 10.0

    def __init__(self, session: Session, console: Console) -> None:
        self._session = session
        self._console = console
        self._told: dict[str, str] = {}
        self._notes = 0
        self._next = time.monotonic() + self._EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self) -> None:
        stats = self._session.stats()
        current = {"source": stats["source_state"]}
        for name, output in zip(names_of(stats["outputs"]), stats["outputs"], strict=True):
            current[name] = output["state"] + (f" ({output['error']})" if output["error"] else "")
        for name, text in current.items():
            if text and self._told.get(name) != text:
                self._console.print(f"{name}: {text}", highlight=False, soft_wrap=True)
        self._told |= current
        self._notes = _print_notes(self._console, stats["notes"], self._notes)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._EVERY
            self._console.print(_status_line(stats, 0.0), highlight=False, soft_wrap=True)


class _TerminalDisplay:
    """A progress bar for files of known length; a status line and a table of the outputs for live streams."""

    def __init__(self, session: Session, console: Console) -> None:
        self._session = session
        self._progress = Progress(
            TextColumn("[bold cyan]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]:.0f} fps"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._bar: Any = None
        self._live = Live(Text("opening …", style="dim"), console=console, refresh_per_second=4, transient=True)
        self._started = time.monotonic()
        self._last: tuple[float, int] = (self._started, 0)
        self._rate = 0.0
        self._notes = 0
        self._targets = Targets()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self) -> None:
        stats = self._session.stats()
        self._measure(stats["counters"].get("frames_out", 0))
        self._notes = _print_notes(self._live.console, stats["notes"], self._notes)
        info = self._session.info
        if info is not None and not info.live and info.duration:
            self._show_progress(stats, info.duration)
        elif info is not None:
            line = _status_line(stats | {"outputs": []}, self._rate)
            self._live.update(Group(line, self._targets.table(stats["outputs"])))
        elif stats["source_state"]:
            self._live.update(Text(stats["source_state"], style="yellow"))

    def _measure(self, frames: int) -> None:
        now = time.monotonic()
        then, before = self._last
        if now - then >= 1.0:
            self._rate = (frames - before) / (now - then)
            self._last = now, frames

    def _show_progress(self, stats: dict[str, Any], duration: float) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task(stats["filter"] or "copy", total=duration, rate=0.0)
            self._live.update(self._progress)
        elapsed = time.monotonic() - self._started
        rate = self._rate or stats["counters"].get("frames_out", 0) / max(elapsed, 1e-3)
        self._progress.update(self._bar, completed=min(duration, stats["position_s"] or 0.0), rate=rate)


def _status_line(stats: dict[str, Any], rate: float) -> Text:
    count = stats["counters"].get
    line = Text(
        "● ", style="bold green" if stats["state"] == "running" else "yellow", overflow="ellipsis", no_wrap=True
    )
    line.append(stats["state"], style="bold")
    if rate:
        line.append(f"  {rate:.1f} fps")
    if stats["filter"]:
        mode = stats["rung"] if stats["filter_ready"] else "starting"
        line.append(f"  {stats['filter']} {mode}", style="cyan" if mode == "full" else "yellow")
    line.append(f"  {stats['latency']['p50_ms']:.0f} ms (p99 {stats['latency']['p99_ms']:.0f})")
    line.append(f"  in {count('frames_in', 0)} out {count('frames_out', 0)}")
    for name in ("late", "reused", "source_shown", "slate_shown", "worker_restarts"):
        if count(name, 0):
            line.append(f"  {name.replace('_', ' ')} {count(name)}", style="yellow")
    if stats["source_state"]:
        line.append(f"  {stats['source_state']}", style="dim")
    for output in stats["outputs"]:
        line.append(f"  {_short(output['output'])} ", style="dim")
        line.append(output["state"], style=STATE_STYLE[output["state"]])
    return line


def _short(name: str) -> str:
    return name.partition("://")[2].partition("/")[0] or name.rpartition("/")[2]


def _chosen(session: Session) -> str:
    """The parameters that are not as they are by default, as the filter took them."""
    params = session.params
    changed = params.model_dump(mode="json", exclude_defaults=True) if params else {}
    return f" ({', '.join(f'{name} {value}' for name, value in changed.items())})" if changed else ""


def print_summary(session: Session) -> None:
    """Where the result is, and how it went."""
    stats = session.stats()
    count = stats["counters"].get
    console = Console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("frames", f"{count('frames_in', 0)} in, {count('frames_out', 0)} out")
    fates = ("late", "reused", "dropped", "source_shown", "slate_shown")
    table.add_row("of these", ", ".join(f"{count(name, 0)} {name.replace('_', ' ')}" for name in fates))
    latency = stats["latency"]
    table.add_row(
        "latency", f"p50 {latency['p50_ms']:.1f} ms, p95 {latency['p95_ms']:.1f} ms, p99 {latency['p99_ms']:.1f} ms"
    )
    for name, stage in stats["stages"].items():
        if name == "filter":
            times = f"p50 {stage['p50_ms']:.1f} ms, p99 {stage['p99_ms']:.1f} ms a block"
            table.add_row("filter", escape(f"{stats['filter']}{_chosen(session)}: {times}"))
    for output in stats["outputs"]:
        text = Text(output["output"], style="bold")
        text.append(f"  {output['sent']} frames, {output['bytes'] / 1e6:.1f} MB", style="default")
        lost = output["dropped"] + output["missed_while_away"]
        if lost or output["reconnects"]:
            text.append(f", {lost} not sent, {output['reconnects']} reconnects", style="yellow")
        if output["state"] == "failed":
            text.append(f"  failed: {output['error']}", style="red")
        table.add_row("output", text)
    console.print(table)
