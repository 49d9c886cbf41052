"""Callers of one cache, in threads and on an event loop, that write down what they were given."""

from __future__ import annotations

import asyncio
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from stepflows import CacheUnavailable, Err, Event, Result, StepFailed, create_workflow
from stepflows.definitions import Workflow
from tests.prove.book import Book, Execution
from tests.voices import async_body, sync_body

__all__ = ["LEASE", "Callers"]

#: Seconds; longer than a busy machine keeps a thread waiting.
LEASE: Final = 5.0
THREADS: Final = 4
TASKS: Final = 3
#: Seconds; some leases' worth of waiting for what a trouble has left behind.
PATIENCE: Final = 60
#: How many keys are asked for at a time, so that several want the same one.
WINDOW: Final = 8
#: The longest step, in seconds.
LONGEST: Final = 0.03


class Callers:
    """They ask for steps of one scope until they are told to stop."""

    def __init__(self, alias: str, name: str, book: Book, chance: random.Random) -> None:
        self._alias, self._name, self._book, self._chance = alias, name, book, chance
        self._stop = threading.Event()

    @property
    def flow(self) -> Workflow:
        down = "run" if self._book.runs_anyway else "fail"
        return create_workflow(self._name, cache=self._alias, lease=LEASE, on_cache_down=down)

    @property
    def keys(self) -> list[str]:
        """All that were ever executed."""
        return sorted({execution.key for execution in self._book.executions.values()})

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """They ask during this block, and have ended after it."""
        chances = [random.Random(self._chance.random()) for _ in range(THREADS + TASKS)]
        asking = [partial(self._ask, chance) for chance in chances[:THREADS]]
        threads = [self._begun(each) for each in (*asking, partial(asyncio.run, self._ask_all(chances[THREADS:])))]
        try:
            yield
        finally:
            self._stop.set()
            self._join(threads)

    def ask_each(self, keys: list[str]) -> None:
        """A run for each of the keys, in a thread that is not waited for any longer than for others."""
        self._join([self._begun(lambda: [self.ask([key]) for key in keys])])

    def _begun(self, task: Callable[[], object]) -> threading.Thread:
        def attempt() -> None:
            try:
                task()
            except BaseException:
                self._book.wrong.append(f"A caller ended with an error:\n{traceback.format_exc()}")

        # Not to be waited for at the end, whatever it hangs in.
        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        return thread

    def _join(self, threads: list[threading.Thread]) -> None:
        deadline = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._book.wrong.append(f"A run has not ended within {PATIENCE} s.")

    def ask(self, keys: list[str], chance: random.Random | None = None) -> Result[Any]:
        """A run in this thread, for these keys."""
        call = _Call(self._book, chance or random.Random(0))
        return call.judged(self.flow.using(on_event=call.hear).run(sync_body(call.body), keys))

    def _ask(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            self.ask(self._chosen(chance), chance)

    async def _ask_all(self, chances: list[random.Random]) -> None:
        await asyncio.gather(*map(self._ask_on_loop, chances))

    async def _ask_on_loop(self, chance: random.Random) -> None:
        while not self._stop.is_set():
            call = _Call(self._book, chance, is_async=True)
            flow = self.flow.using(on_event=call.hear)
            call.judged(await flow.arun(async_body(call.body), self._chosen(chance)))
            # What comes from the cache may come without a pause.
            await asyncio.sleep(0)

    def _chosen(self, chance: random.Random) -> list[str]:
        """Some keys that nobody has asked for yet, now and then among others that are done."""
        low = max(0, len(self._book.executions) - WINDOW // 2)
        if chance.random() < 0.3:
            low = chance.randint(0, low)
        return [f"{low + number}" for number in chance.sample(range(WINDOW), chance.randint(1, 4))]


class _Call:
    """One run."""

    def __init__(self, book: Book, chance: random.Random, *, is_async: bool = False) -> None:
        self._book, self._chance, self._is_async = book, chance, is_async
        self._since = book.moment()
        #: Keys whose results could not be stored, and those that this run has executed.
        self._unstored: set[str] = set()
        self._executed: set[str] = set()

    def hear(self, event: Event) -> None:
        if event.type == "step_cache_write_failed":
            self._unstored.add(str(event.key))

    def body(self, step: Any, deps: Any, keys: list[str]) -> Iterator[Any]:
        if self._chance.random() < 0.3:
            kept = [key for key in keys if not _fails(key)]
            work = self._work(self._book.moment())
            values = yield step.map("map", kept, work, key=str)
            for key, value in zip(kept, values, strict=True):
                self._compare(key, value)
            return
        for key in keys:
            work = self._work(self._book.moment())
            try:
                value = yield step("map", lambda key=key, work=work: work(key), key=key)
            except StepFailed as failed:
                value = failed.error
            self._compare(key, value)

    def judged(self, result: Result[Any]) -> Result[Any]:
        if isinstance(result, Err) and isinstance(result.error, CacheUnavailable) and not self._book.runs_anyway:
            self._book.refuse("a run", self._since)
        elif not result.ok:
            self._book.wrong.append(f"a run ended with {result!r}.")
        return result

    def _compare(self, key: str, value: Any) -> None:
        # Whoever runs uncached is not told whether its result is stored.
        known = not (self._book.runs_anyway and key in self._executed)
        self._book.compare(key, value, stored=known and key not in self._unstored)

    def _work(self, asked: int) -> Callable[[str], Any]:
        def work(key: str) -> Any:
            execution = self._begin(key, asked)
            time.sleep(self._chance.uniform(0, LONGEST))
            return _outcome(execution)

        async def later(key: str) -> Any:
            execution = self._begin(key, asked)
            await asyncio.sleep(self._chance.uniform(0, LONGEST))
            return _outcome(execution)

        return later if self._is_async and self._chance.random() < 0.7 else work

    def _begin(self, key: str, asked: int) -> Execution:
        self._executed.add(key)
        return self._book.begin(key, asked)


def _fails(key: str) -> bool:
    """Whether the step of this key fails, each time it is executed."""
    return int(key) % 5 == 0


def _outcome(execution: Execution) -> Any:
    value = [execution.key, execution.serial]
    return Err(value) if _fails(execution.key) else value
