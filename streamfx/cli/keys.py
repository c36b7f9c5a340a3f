"""``streamfx keys``: stream keys in the system's keyring."""

from __future__ import annotations

import getpass
import sys

import typer

from streamfx.core.errors import UsageError
from streamfx.media.keys import forget_key, store_key
from streamfx.media.platforms import PLATFORMS


def set_key(name: str) -> None:
    """Asks for a key without showing it, or takes one line of what is piped in. Raises ``UsageError``."""
    try:
        key = getpass.getpass(f"Stream key of {name}: ") if sys.stdin.isatty() else sys.stdin.readline()
    except EOFError:
        key = ""
    if not key.strip():
        raise UsageError("no key was given; nothing was stored")
    store_key(name, key.strip())
    typer.echo(f"stored; use it with --to {name if name in PLATFORMS else f'PLATFORM:@{name}'}")


def remove_key(name: str) -> None:
    """Forgets a key. Raises ``UsageError``."""
    forget_key(name)
    typer.echo("removed")
