"""Stream keys in the keyring of the system, by name."""

from __future__ import annotations

import importlib
from typing import Any

from streamfx.core.errors import UsageError

_SERVICE = "streamfx"
_MISSING = "the keyring needs the package keyring; install with: pip install 'streamfx[keys]'"


def stored_key(name: str) -> str | None:
    """The key kept under ``name``; None if there is none, or no keyring."""
    try:
        keyring = importlib.import_module("keyring")
    except ImportError:
        return None
    try:
        key: str | None = keyring.get_password(_SERVICE, name)
    except keyring.errors.NoKeyringError:
        return None
    except keyring.errors.KeyringError as error:
        raise UsageError(_refusal(error)) from error
    return key


def store_key(name: str, key: str) -> None:
    """Keeps a key, in place of one that was there. Raises ``UsageError``."""
    keyring = _keyring()
    try:
        keyring.set_password(_SERVICE, name, key)
    except keyring.errors.KeyringError as error:
        raise UsageError(_refusal(error)) from error


def forget_key(name: str) -> None:
    """Forgets a key. Raises ``UsageError``, also if there is none."""
    keyring = _keyring()
    try:
        keyring.delete_password(_SERVICE, name)
    except keyring.errors.PasswordDeleteError as error:
        raise UsageError(f"there is no key for {name} in the keyring") from error
    except keyring.errors.KeyringError as error:
        raise UsageError(_refusal(error)) from error


def _keyring() -> Any:
    try:
        return importlib.import_module("keyring")
    except ImportError as error:
        raise UsageError(_MISSING) from error


def _refusal(error: Exception) -> str:
    return (
        f"the keyring cannot be used ({type(error).__name__}); unlock it, or on a machine without a desktop give the "
        "key by an environment variable or a file, as docs/relay.md says"
    )
