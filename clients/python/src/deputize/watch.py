"""Looks at the server's tools and prompts now and then, and says when they are not what was approved."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from .guard import Guard
from .guard.known import ObservedTools
from .guard.link import BrokerLink
from .guard.report import Event
from .listing import Lister

if TYPE_CHECKING:
    from .asgi import MiddlewareOptions

logger = logging.getLogger("deputize.guard")


class Watch:
    """Keeps what the guard knows of the server's tools fresh."""

    def __init__(self, guard: Guard, link: BrokerLink, lister: Lister, options: MiddlewareOptions) -> None:
        self._guard = guard
        self._link = link
        self._lister = lister
        self._options = options
        self._looking = asyncio.Lock()
        self._due = -math.inf
        """Uptime from which on the last look is too old."""
        self._prompts: ObservedTools | None = None

    async def observe(self, like: MutableMapping[str, Any]) -> None:
        """Look, where the last look is too old. Whoever comes meanwhile waits for it.

        To be asked for callers whose token was verified, and for nobody else: it makes the server work.

        Args:
            like: The scope that says where the server is asked.
        """
        clock = self._guard.clock
        async with self._looking:
            if clock.uptime() < self._due:
                return
            self._due = math.inf
            try:
                await asyncio.wait_for(self._look(like), _TIMEOUT_SECONDS)
            except asyncio.CancelledError:
                # Whoever looked went away: the next one looks.
                self._due = -math.inf
                raise
            except Exception:
                # The guard goes on with what it saw; if it saw nothing, nothing can be called.
                logger.exception("the server's tools cannot be listed")
                self._due = clock.uptime() + _RETRY_SECONDS
                return
            # What the server said during the look may be news that came too late for it.
            self._due = min(self._due, clock.uptime() + self._options.tools_max_age_seconds)

    def look_again(self) -> None:
        """The server's tools are not what they were: whoever comes next waits for a new look."""
        self._due = -math.inf

    async def _look(self, like: MutableMapping[str, Any]) -> None:
        tools = self._options.tools
        definitions = await (self._lister.listed(like) if tools is None else tools())
        before = self._guard.observed
        observed = self._guard.observe_tools(definitions)
        if observed != before:
            self._report(observed, is_first=before is None)
        await self._look_at_prompts(like)

    async def _look_at_prompts(self, like: MutableMapping[str, Any]) -> None:
        """Look at the server's prompts, where any are approved."""
        snapshot, prompts = self._guard.snapshot, self._options.prompts
        if snapshot is None or not snapshot.prompts:
            return
        definitions = await (self._lister.listed(like, "prompts") if prompts is None else prompts())
        before, self._prompts = self._prompts, self._guard.observe_prompts(definitions)
        if self._prompts == before:
            return
        for name in self._prompts.drifted:
            logger.warning("prompt is not what was approved", extra={"prompt": name})
            self._link.report(Event(kind="drifted", tool=name, action="prompts/get"))

    def _report(self, observed: ObservedTools, *, is_first: bool) -> None:
        self._link.report(Event(kind="discovered" if is_first else "list_changed"))
        for name in observed.drifted:
            logger.warning("tool is not what was approved", extra={"tool": name})
            self._link.report(Event(kind="drifted", tool=name))
        for name in observed.unknown:
            logger.warning("tool was never approved", extra={"tool": name})


_RETRY_SECONDS = 1.0
_TIMEOUT_SECONDS = 10.0
