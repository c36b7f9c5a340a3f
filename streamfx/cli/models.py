"""``streamfx models``: checkpoints that are known by name, and fetching them."""

from __future__ import annotations

import os

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamfx.models.registry import MODELS, find, folder_of, is_here


def show_models() -> None:
    """A line for each."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("model", no_wrap=True)
    table.add_column("what it is", ratio=2)
    table.add_column("download", no_wrap=True)
    table.add_column("GPU memory", no_wrap=True)
    table.add_column("licence", ratio=1)
    for model in MODELS:
        mark = " [green]✓[/green]" if is_here(model) else ""
        sizes = size_text(model.gigabytes), size_text(model.vram)
        table.add_row(f"[bold]{model.name}[/bold]{mark}", escape(model.summary), *sizes, escape(model.licence))
    console = Console()
    console.print(table)
    console.print(
        "\n✓ is here. streamfx models show NAME tells where one is from, streamfx models pull NAME fetches it."
    )


def show_model(name: str) -> None:
    """All that is known of one. Raises ``UsageError``."""
    model = find(name)
    console = Console()
    console.print(f"[bold]{model.name}[/bold]  {escape(model.summary)}")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    rows = {
        "from": model.page,
        "licence": model.licence + (" (given to those who agree to its terms, with HF_TOKEN)" if model.gated else ""),
        "note": model.note,
        "download": f"about {size_text(model.gigabytes)}",
        "GPU memory": f"about {size_text(model.vram)}" if model.vram else "",
        "files": ", ".join(model.files) + (" (published as pickles; read as plain tensors)" if model.pickled else ""),
        "needs": ", ".join(model.needs),
        "here": str(folder_of(model)) if is_here(model) else "no",
    }
    for key, value in rows.items():
        if value:
            table.add_row(key, escape(value))
    console.print(table)


def pull_model(name: str) -> None:
    """Fetches one, and says what else it needs. Raises ``UsageError`` or ``StreamFXError``."""
    # The library tells of every attempt otherwise, beside what is said in the end.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from streamfx.models.pull import pull

    model = find(name)
    console = Console()
    console.print(f"{model.name}: {model.page}; licence: {escape(model.licence)}")
    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console) as bar:
        task = bar.add_task("", total=None)

        def show(file: str, done: int, total: int) -> None:
            bar.update(task, description=escape(file), completed=done, total=total)

        folder = pull(model, show)
    console.print(f"{model.name} is in {folder}", soft_wrap=True)
    missing = [need for need in model.needs if not is_here(find(need))]
    if missing:
        console.print(f"It needs besides: {', '.join(f'streamfx models pull {need}' for need in missing)}")


def size_text(gigabytes: float) -> str:
    """Nothing is empty."""
    return "" if not gigabytes else f"{1000 * gigabytes:.0f} MB" if gigabytes < 1 else f"{gigabytes:.3g} GB"
