"""A lane on an event loop, beside others."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable

from asgiref.sync import sync_to_async

from stepflows import Ok, Result, create_workflow
from tests.prove.deeds import deed, done, dropped
from tests.prove.lane import MEMORY, PATIENCE, Lane
from tests.prove.threads import QUEUE
from tests.prove.workflows import keys_of, order_async

__all__ = ["LoopLane"]


class LoopLane(Lane):
    """See the module."""

    async def live(self, wanted: Callable[[], bool]) -> None:
        """Until it is no more wanted; then everything that it remembers is asked for again and removed."""
        deeds = [self.run, self.run, self.send, self.share, self.tear]
        while wanted():
            await self._do(self.chance.choice(deeds))
            await asyncio.sleep(self.chance.uniform(0, 0.3))
            while len(self.memory) > MEMORY:
                await self._do(self.forget)
        while self.memory:
            await self._do(self.forget)

    async def _do(self, deed: Callable[[], Awaitable[object]]) -> None:
        self.done[f"a{deed.__name__}"] += 1
        try:
            await deed()
        except Exception:
            self.wrong.append(f"{self.name}, {deed.__name__}: {traceback.format_exc()}")

    async def run(self) -> None:
        """On this loop."""
        placed = self.new_order(order_async)
        result = await order_async.arun(placed.name, placed.items, self.chance.uniform(0, 0.02))
        self.expect("run", result, placed.expected)
        self.memory.append(placed)

    async def share(self) -> None:
        """On this loop, while others do the same."""
        placed = self.shared_order(order_async)
        result = await order_async.arun(placed.name, placed.items, self.chance.uniform(0, 0.02), self.ttl)
        self.expect("share", result, placed.expected)

    async def send(self) -> None:
        """On a worker."""
        placed = self.new_order(order_async)
        arguments = {"name": placed.name, "items": placed.items}
        # In the thread that Django's own async methods use: any other would keep a connection of its own open.
        run = await sync_to_async(order_async.apply_async)(kwargs=arguments, queue=QUEUE)
        deadline = time.monotonic() + PATIENCE
        while not run.finished and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            await run.arefresh_from_db()
        self.expect("send", run.result, placed.expected)
        self.memory.append(placed)

    async def tear(self) -> None:
        """Cancelled in the middle of a step, and run again."""
        name = self.new_name()
        flow = create_workflow("prove.torn", cache="redis")

        async def charge() -> str:
            text = deed(name, 0)
            try:
                await asyncio.sleep(self.chance.uniform(0, 0.1))
            except asyncio.CancelledError:
                dropped(name, 0)
                raise
            return text

        async def body(step, deps):
            charged = await step("charge", charge, key=name)
            done(name, 0)
            return charged

        task = asyncio.ensure_future(flow.arun(body))
        await asyncio.sleep(self.chance.uniform(0, 0.1))
        task.cancel()
        first: list[object] = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(first[0], asyncio.CancelledError):
            self.expect("not cancelled", first[0], Ok(f"{name} 0"))
        again: Result[str] = await flow.arun(body)
        self.expect("torn", again, Ok(f"{name} 0"))
        self.expect("delete", await flow.cache.adelete(name), True)

    async def forget(self) -> None:
        """An order of long ago is still known, and then removed."""
        placed = self.memory.popleft()
        self.expect("replay", await order_async.arun(placed.name, placed.items), placed.expected)
        keys = keys_of(placed.name, placed.items)
        cache = order_async.cache
        self.expect("keys", await cache.akeys(f"{placed.name}:"), sorted(keys))
        self.expect("clear", await cache.aclear(f"{placed.name}:"), len(keys))
