"""Parts of pages as they change: drawn once for everybody who looks at the same, sent as server-sent events."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import suppress

from anyio.to_thread import run_sync

from jobs.api.problems import HttpProblem
from jobs.errors import StoreUnavailable, TextmillError

EVERY_S = 2.0
"""Time between two drawings."""
SHARE = 0.2
"""Most of the time that drawing may take."""
ALIVE_S = 15.0
LONGEST_S = 600.0
"""A stream ends after so long, and the browser asks again: a key that was revoked has no more until then."""
MOST = 500
"""Pages that are drawn at once; whoever wants a further one looks by asking, as where events do not come through."""
STREAM = "text/event-stream"

Parts = dict[str, str]
"""HTML by the id of its outermost element."""
Draw = Callable[[], Parts]
log = logging.getLogger("textmill.web")


class _Show:
    """One page, and how many look at it."""

    def __init__(self) -> None:
        self.watching = 0
        self.parts: Parts | None = None
        self.over = False
        self.drawn = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Live:
    """The pages that somebody looks at; belongs to one event loop."""

    def __init__(self) -> None:
        self._shows: dict[Hashable, _Show] = {}

    async def once(self, key: Hashable, every_s: float, draw: Draw) -> Parts:
        """The parts as they are, or were a moment ago for somebody else. Raises what `draw` raises."""
        show = self._shows.get(key)
        if show is not None and show.parts is not None:
            return show.parts
        return await run_sync(draw)

    def stream(self, key: Hashable, every_s: float, draw: Draw) -> AsyncIterator[bytes]:
        """Server-sent events `parts`: a JSON object of the parts that have changed; `over` when there is nothing more
        to see. Raises HttpProblem when too many pages are followed already."""
        if key not in self._shows and len(self._shows) >= MOST:
            raise HttpProblem(503, "too_many_pages", f"{MOST} pages are followed already", {"Retry-After": "30"})
        return self._stream(key, every_s, draw)

    async def _stream(self, key: Hashable, every_s: float, draw: Draw) -> AsyncIterator[bytes]:
        show = self._shows.setdefault(key, _Show())
        show.watching += 1
        if show.task is None:
            show.task = asyncio.get_running_loop().create_task(self._draw(show, every_s, draw), name="live")
        loop, sent = asyncio.get_running_loop(), Parts()
        until, spoke = loop.time() + LONGEST_S, loop.time()
        try:
            while loop.time() < until:
                drawn, parts = show.drawn, show.parts or {}
                if new := {name: html for name, html in parts.items() if sent.get(name) != html}:
                    sent.update(new)
                    spoke = loop.time()
                    yield f"event: parts\ndata: {json.dumps(new)}\n\n".encode()
                if show.over:
                    yield b"event: over\ndata: {}\n\n"
                    return
                if loop.time() - spoke > ALIVE_S:
                    spoke = loop.time()
                    yield b": alive\n\n"
                with suppress(TimeoutError):
                    async with asyncio.timeout(ALIVE_S):
                        await drawn.wait()
        finally:
            show.watching -= 1
            if not show.watching:
                if self._shows.get(key) is show:
                    del self._shows[key]
                if show.task is not None:
                    show.task.cancel()

    async def _draw(self, show: _Show, every_s: float, draw: Draw) -> None:
        loop = asyncio.get_running_loop()
        while not show.over:
            began = loop.time()
            try:
                show.parts = await run_sync(draw)
            except StoreUnavailable as error:
                log.warning("a page cannot be drawn: %s", error)
            except TextmillError:
                show.over = True  # what it showed is gone
            except Exception:
                log.exception("a page cannot be drawn")
                show.over = True
            show.drawn.set()
            show.drawn = asyncio.Event()
            await asyncio.sleep(max(every_s, (loop.time() - began) / SHARE))
