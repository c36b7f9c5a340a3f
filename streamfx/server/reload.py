"""The configuration read again while streams run: what has changed, and what of it can be applied at once."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamfx.core.errors import StreamFXError
from streamfx.filters.registry import setup_fields
from streamfx.media.url import MediaUrl
from streamfx.pipeline.settings import FilterChoice, SessionSettings
from streamfx.server import systemd
from streamfx.server.live_session import ConflictError, LiveSession
from streamfx.server.manager import Manager
from streamfx.server.settings import ServeConfig, SessionConfig

logger = logging.getLogger(__name__)

_PATIENCE = 10.0
_PAUSE = 0.25
_OF_SESSIONS = frozenset(SessionConfig.model_fields)


@dataclass(slots=True)
class SessionPlan:
    """What of one session can change while it runs. ``outputs``: by their whole URLs."""

    outputs: dict[str, MediaUrl]
    filter: FilterChoice | None


@dataclass(slots=True)
class Plan:
    """What a configuration asks for. ``fixed``: by name, all that only a restart changes."""

    sessions: dict[str, SessionPlan]
    fixed: dict[str, Any]


def plan(config: ServeConfig, known: Mapping[str, SessionSettings] | None = None) -> Plan:
    """Takes a configuration apart. ``known``: what its sessions come to, where that is known; else filters are imported
    and keys looked up. Raises ``UsageError`` or ``FilterError`` for what is wrong."""
    own = type(config).model_fields.keys() - _OF_SESSIONS - {"sessions"}
    result = Plan({}, {name: getattr(config, name) for name in own})
    for id, session in config.all_sessions().items():
        settings = known[id] if known and id in known else config.settings_of(id, session)
        result.sessions[id] = SessionPlan({url.raw: url for url in settings.outputs}, settings.filter)
        where = "" if id == "live" else f"sessions.{id}."
        result.fixed |= {where + name: getattr(session, name) for name in _OF_SESSIONS - {"outputs", "filter"}}
        result.fixed[f"{where}encode"] = config.encode_of(session)
    return result


def needs_restart(before: Plan, after: Plan) -> list[str]:
    """The names of what differs and cannot be applied."""
    sessions = [f"sessions.{id}" for id in before.sessions.keys() ^ after.sessions.keys()]
    both = before.fixed.keys() & after.fixed.keys()
    return sorted(sessions + [name for name in both if before.fixed[name] != after.fixed[name]])


def changed_params(before: FilterChoice | None, after: FilterChoice | None) -> dict[str, Any] | None:
    """The parameters that differ, if the filter takes them as it runs; None if another one has to start."""
    if before is None or after is None:
        return {} if before is after else None
    if (before.target, before.inline, before.threads) != (after.target, after.inline, after.threads):
        return None
    old, new = before.params.model_dump(), after.params.model_dump()
    changes = {name: value for name, value in new.items() if old[name] != value}
    return None if changes.keys() & setup_fields(after.type) else changes


async def reload_on_signal(manager: Manager, reread: Callable[[], ServeConfig]) -> None:
    """Reads the configuration again at each SIGHUP and applies what has changed; for ever. One that is broken changes
    nothing."""
    if not hasattr(signal, "SIGHUP"):
        return
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    try:
        known = {id: session.settings for id, session in manager.sessions.items()}
        reloader = Reloader(manager, plan(manager.config, known))
        while True:
            await asked.wait()
            asked.clear()
            systemd.tell_reloading()
            try:
                wanted = await asyncio.to_thread(lambda: plan(reread()))
            except StreamFXError as error:
                logger.error("reload: nothing was changed: %s", " ".join(str(error).split()))
            else:
                try:
                    await reloader.apply(wanted)
                except Exception:  # the streams are worth more than the change
                    logger.exception("reload: not all was changed")
            systemd.tell("READY=1")
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


class Reloader:
    """Brings what runs to what a configuration asks for; each step is a line in the log.

    ``running``: what it was started with. Outputs and parameters that were changed over HTTP since then stay, unless
    the file has changed in them too.
    """

    def __init__(self, manager: Manager, running: Plan) -> None:
        self._manager = manager
        self._running = running

    async def apply(self, wanted: Plan) -> None:
        """Applies what can be, and names the rest. What fails stays as it is, and is tried again the next time."""
        steps = 0
        for id in self._running.sessions.keys() & wanted.sessions.keys():
            session = self._manager.get(id)
            if session is not None:
                steps += await self._apply_outputs(session, self._running.sessions[id], wanted.sessions[id])
                steps += await self._apply_filter(session, self._running.sessions[id], wanted.sessions[id])
        waiting = needs_restart(self._running, wanted)
        if waiting:
            logger.warning("reload: changed, but takes a restart: %s", ", ".join(waiting))
        elif not steps:
            logger.info("reload: nothing has changed")

    async def _apply_outputs(self, session: LiveSession, running: SessionPlan, wanted: SessionPlan) -> int:
        gone = [url for raw, url in running.outputs.items() if raw not in wanted.outputs]
        come = [url for raw, url in wanted.outputs.items() if raw not in running.outputs]
        for url in gone:
            id = session.output_id(url)
            if id is not None:
                await session.remove_output(id)
            del running.outputs[url.raw]
            logger.info("reload: %s %s removed", session.id, url)
        for url in come:
            adding = functools.partial(session.add_output, url)
            if session.output_id(url) is None and not await _tried(adding, f"{session.id} {url} was not added"):
                continue
            running.outputs[url.raw] = url
            logger.info("reload: %s %s added", session.id, url)
        return len(gone) + len(come)

    async def _apply_filter(self, session: LiveSession, running: SessionPlan, wanted: SessionPlan) -> int:
        changes = changed_params(running.filter, wanted.filter)
        if changes == {}:
            return 0
        name = wanted.filter.type.name if wanted.filter else "none"
        if changes is not None and session.filter_name == name:
            session.set_params(changes)
            logger.info("reload: %s %s: %s", session.id, name, ", ".join(f"{k}={v}" for k, v in changes.items()))
        elif await _tried(
            lambda: session.switch_filter(wanted.filter), f"{session.id} was not switched to filter {name}"
        ):
            logger.info("reload: %s switched to filter %s", session.id, name)
        else:
            return 1
        running.filter = wanted.filter
        return 1


async def _tried(work: Callable[[], Awaitable[Any]], otherwise: str) -> bool:
    """Does it, as soon as the stream is not in the middle of being started. Returns whether it worked, and logs why
    not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    while True:
        try:
            await work()
        except ConflictError as error:
            if loop.time() < deadline:
                await asyncio.sleep(_PAUSE)
                continue
            logger.error("reload: %s: %s", otherwise, error)
            return False
        except StreamFXError as error:
            logger.error("reload: %s: %s", otherwise, error)
            return False
        return True
