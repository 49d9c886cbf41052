"""A lane in a thread: runs here and on workers, calls them off, goes on with them, looks at them and removes them."""

from __future__ import annotations

import io
import itertools
import time
import traceback
from collections.abc import Callable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.management import call_command
from django.db import connections
from django.test import Client

from stepflows import Err, Ok, StepCache, create_workflow
from stepflows.models import Run
from tests.calls import Calls
from tests.outages.single import await_until
from tests.prove.deeds import void
from tests.prove.lane import MEMORY, PATIENCE, Lane, Order
from tests.prove.workflows import CACHE, gate_place, keys_of, open_gate, order

__all__ = ["QUEUE", "ThreadLane"]

QUEUE = "soak"
PAGES = ["cachedstep/", "cachedstep/?p=1", "cachedstep/?workflow=prove.order", "run/", "run/?state__exact=succeeded"]


class Declined(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"declined with {code}")
        self.code = code


class ThreadLane(Lane):
    """See the module."""

    def live(self, wanted: Callable[[], bool]) -> None:
        """Until it is no more wanted; then everything that it remembers is asked for again and removed."""
        deeds = [self.run, self.run, self.send, self.send, self.share, self.cancel, self.retry, self.expire]
        deeds += [self.decline, self.browse, self.refresh]
        try:
            while wanted():
                self._do(self.chance.choice(deeds))
                time.sleep(self.chance.uniform(0, 0.2))
                while len(self.memory) > MEMORY:
                    self._do(self.forget)
            while self.memory:
                self._do(self.forget)
        finally:
            connections.close_all()

    def _do(self, deed: Callable[[], object]) -> None:
        self.done[deed.__name__] += 1
        try:
            deed()
        except Exception:
            self.wrong.append(f"{self.name}, {deed.__name__}: {traceback.format_exc()}")

    def run(self) -> None:
        """Here."""
        placed = self.new_order(order)
        self.expect("run", order.run(placed.name, placed.items, self._pause()), placed.expected)
        self.memory.append(placed)

    def share(self) -> None:
        """Here, while others do the same."""
        placed = self.shared_order(order)
        self.expect("share", order.run(placed.name, placed.items, self._pause(), self.ttl), placed.expected)

    def send(self) -> None:
        """On a worker."""
        placed = self.new_order(order)
        self.expect("send", self._sent(placed).wait(PATIENCE), placed.expected)
        self.memory.append(placed)

    def cancel(self) -> None:
        """On a worker, called off in the middle and taken up again."""
        placed = self.new_order(order)
        run = self._sent(placed, pause=0.1)
        time.sleep(self.chance.uniform(0, 0.8))
        if run.cancel():
            self.expect("cancel", run.wait(PATIENCE), Err("cancelled"))
            self.expect("resume", run.resume(), True)
        self.expect("resumed", run.wait(PATIENCE), placed.expected)
        self.memory.append(placed)

    def retry(self) -> None:
        """On a worker, where a step is declined until somebody opens the gate."""
        placed = self.new_order(order)
        run = self._sent(placed, gate=True)
        self.expect("declined", run.wait(PATIENCE), Err("DECLINED"))
        self.expect("resume", run.resume(), True)
        self.expect("declined again", run.wait(PATIENCE), Err("DECLINED"))
        open_gate(placed.name)
        void(placed.name, gate_place(placed.items))
        self.expect("retry", run.retry(), True)
        self.expect("retried", run.wait(PATIENCE), placed.expected)
        self.memory.append(placed)

    def expire(self) -> None:
        """An entry that is gone after its time runs once more."""
        name, numbers = self.new_name(), itertools.count(1)
        flow = create_workflow("prove.passing", cache="redis")

        def ask() -> object:
            return flow.run(lambda step, deps: step("rate", lambda: next(numbers), key=name, ttl=0.5))

        self.expect("passing", ask(), Ok(1))
        await_until(lambda: not flow.cache.has(name))
        self.expect("passed", ask(), Ok(2))

    def decline(self) -> None:
        """An error is stored, and comes back as it was."""
        name, charge = self.new_name(), Calls(Declined(51), raises=True)
        flow = create_workflow("prove.errors", cache="redis")
        for _ in range(3):
            result = flow.run(lambda step, deps: step("charge", charge, key=name))
            error = result.error if isinstance(result, Err) else None
            found = type(error), getattr(error, "code", None), str(error), charge.count
            self.expect("error", found, (Declined, 51, "declined with 51", 1))
        self.expect("delete", flow.cache.delete(name), True)

    def refresh(self) -> None:
        """What is refreshed is replaced."""
        name = self.new_name()
        flow = create_workflow("prove.refreshed", cache="redis")
        for number in range(3):
            result = flow.run(lambda step, deps, n=number: step("rate", lambda: n, key=name, refresh=True))
            self.expect("refresh", result, Ok(number))
        self.expect("clear", flow.cache.clear(name), 1)

    def browse(self) -> None:
        """The pages of the admin and the command that lists."""
        client = self._client()
        for page in self.chance.sample(PAGES, 2):
            self.expect(
                page, client.get(f"/admin/stepflows/{page}", headers={"accept-language": "en"}).status_code, 200
            )
        if run := Run.objects.first():
            # It may be removed meanwhile.
            found = client.get(f"/admin/stepflows/run/{run.pk}/change/").status_code in (200, 302)
            self.expect("page of a run", found, True)
        call_command("list_step_cache", limit=self.chance.choice([10, 0]), stdout=io.StringIO(), stderr=io.StringIO())

    def forget(self) -> None:
        """An order of long ago is still known, and then removed in one of several ways."""
        placed = self.memory.popleft()
        ahead: Any = {"prefetch": f"{placed.name}:"} if self.chance.random() < 0.5 else {}
        self.expect("replay", order.run(placed.name, placed.items, **ahead), placed.expected)
        keys = keys_of(placed.name, placed.items)
        cache: StepCache = order.cache
        self.expect("keys", cache.keys(f"{placed.name}:"), sorted(keys))
        way = self.chance.choice(["clear", "delete", "command"])
        if way == "clear":
            self.expect("clear", cache.clear(f"{placed.name}:"), len(keys))
        elif way == "delete":
            self.expect("delete", [cache.delete(key) for key in keys], [True] * len(keys))
        else:
            said = io.StringIO()
            call_command(
                "clear_step_cache", workflow=order.name, prefix=f"{placed.name}:", interactive=False, stdout=said
            )
            self.expect("command", f"{len(keys)} " in said.getvalue(), True)
        self.expect("gone", cache.keys(f"{placed.name}:"), [])
        caches[CACHE].delete(f"gate {placed.name}")

    def _sent(self, placed: Order, *, pause: float | None = None, gate: bool = False) -> Run:
        arguments = {"name": placed.name, "items": placed.items, "gate": gate}
        arguments["pause"] = self._pause() if pause is None else pause
        return order.apply_async(kwargs=arguments, queue=QUEUE)

    def _pause(self) -> float:
        """The time that each step takes."""
        return self.chance.uniform(0, 0.02)

    def _client(self) -> Client:
        if not hasattr(self, "_browser"):
            self._browser = Client()
            self._browser.force_login(get_user_model().objects.get(username="prover"))
        return self._browser
