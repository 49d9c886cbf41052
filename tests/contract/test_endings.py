"""Runs that end before their steps do, and caches and loops that others hold up."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.auth.models import Group
from django.db import connections, transaction

from stepflows import Event, NotCacheable, Ok, StepDeadlock, create_workflow
from stepflows.caches import backend_for, keeper
from stepflows.caches.backend import Backend
from tests.contract.test_steps import stepping
from tests.voices import Sync, Voice

PATIENCE = 20


async def until(true: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


class Held:
    """Works in a thread until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.count = 0

    def __call__(self, *_: Any) -> str:
        self.count += 1
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return f"run {self.count}"


@pytest.mark.parametrize("kind", ["async body", "sync body", "map"])
async def test_a_cancelled_run_loses_nothing_that_a_thread_is_at(redis_alias: str, kind: str):
    """The thread goes on: it keeps the lease, and what it comes to is stored for the next one."""
    work = Held()
    flow = create_workflow("shop", cache=redis_alias)

    async def one(step, deps):
        return await step("a", work, key="a")

    async def mapped(step, deps):
        return (await step.map("a", ["a", "b"], work, key=str, limit=1))[0]

    def body(step, deps):
        return step("a", work, key="a")

    chosen = {"async body": one, "sync body": body, "map": mapped}[kind]
    task = asyncio.ensure_future(flow.arun(chosen))
    await until(work.begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    # Somebody else, on a thread of its own, waits for what the thread is at.
    waiting = asyncio.ensure_future(
        asyncio.to_thread(lambda: Sync().run(flow, stepping("a", lambda: "other", key="a")))
    )
    await asyncio.sleep(0.05)
    assert not waiting.done()
    work.go.set()
    assert await waiting == Ok("run 1")
    assert work.count == 1
    await asyncio.to_thread(connections.close_all)


async def test_a_function_that_has_not_begun_gives_its_lease_back(redis_alias: str):
    """When nobody waits for it any more before its thread was free."""
    busy = Held()
    flow = create_workflow("shop", cache=redis_alias)

    async def body(step, deps):
        return await step("a", lambda: 1, key="a")

    blocking = asyncio.ensure_future(sync_to_async(busy)())
    await until(busy.begun.is_set)
    task = asyncio.ensure_future(flow.arun(body))
    await until(lambda: len(keeper.keeper._leases) > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    busy.go.set()
    await blocking
    assert await flow.arun(body) == Ok(1)


def test_a_time_limit_during_a_map_loses_nothing_that_was_done(cache: Any):
    """What the other threads are at is stored as well."""
    both = threading.Barrier(2)

    def work(item):
        both.wait(PATIENCE)
        if item == "limit":
            raise SoftTimeLimitExceeded
        time.sleep(0.05)
        return item

    flow = create_workflow("shop", cache=cache)
    flow.run(lambda step, deps: step.map("m", ["limit", "done"], work, key=str, limit=2))
    assert flow.run(lambda step, deps: step("m", lambda: "again", key="done")) == Ok("done")


async def test_an_async_step_needs_no_thread_of_djangos(redis_alias: str):
    """It runs on while something sync holds that thread."""
    busy = Held()

    async def work():
        return 1

    async def body(step, deps):
        return await step("a", work, key="a")

    blocking = asyncio.ensure_future(sync_to_async(busy)())
    await until(busy.begun.is_set)
    assert await create_workflow("shop", cache=redis_alias).arun(body) == Ok(1)
    busy.go.set()
    await blocking


async def test_a_sync_and_an_async_run_of_one_loop_share_a_step(redis_alias: str):
    """The one waits in Django's thread, and the other does not need it."""
    at_work = asyncio.Event()

    async def work():
        at_work.set()
        await asyncio.sleep(0.05)
        return 1

    async def abody(step, deps):
        return await step("a", work, key="a")

    def body(step, deps):
        return step("a", lambda: 2, key="a")

    flow = create_workflow("shop", cache=redis_alias)
    asynchronous = asyncio.ensure_future(flow.arun(abody))
    await at_work.wait()
    assert [*await asyncio.gather(asynchronous, flow.arun(body))] == [Ok(1), Ok(1)]


@pytest.mark.django_db(transaction=True)
def test_a_deferred_value_is_stored_as_it_was(voice: Voice, redis_alias: str):
    """What the body does to it before the commit is not the step's."""

    def body(step, deps):
        value = yield step("a", lambda: [Group.objects.count()], key="a")
        value.append("changed")
        return value

    flow = create_workflow("shop", cache=redis_alias)
    with transaction.atomic():
        assert voice.run(flow, body) == Ok([0, "changed"])
    assert flow.cache.get("a") == Ok([0])


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_kept_shows_before_the_commit(voice: Voice, redis_alias: str, events: list[Event]):
    """As it does outside a transaction; and its lease ends."""
    flow = create_workflow("shop", cache=redis_alias, on_event=events.append)
    with transaction.atomic():
        result = voice.run(flow, stepping("a", lambda: Group.objects.create(name="a"), key="a"))
        assert isinstance(result.error, NotCacheable)
    assert "step_cache_write_failed" in [event.type for event in events]
    assert voice.run(flow, stepping("a", lambda: 1, key="a")) == Ok(1)


@pytest.mark.django_db(transaction=True)
def test_a_transaction_does_not_wait_for_ever(voice: Voice, redis_alias: str):
    """Who has the lease may be waiting for what this transaction keeps back."""
    flow = create_workflow("shop", cache=redis_alias, lease=0.3)
    taken = flow.cache.claim(["b"], 30)

    def body(step, deps):
        yield step("a", Group.objects.count, key="a")
        return (yield step("b", lambda: 1, key="b"))

    with transaction.atomic():
        result = voice.run(flow, body)
    assert isinstance(result.error, StepDeadlock)
    assert result.step.key == "b"
    flow.cache.release(taken)
    assert voice.run(flow, body) == Ok(1)


def test_a_cache_that_does_not_answer_costs_no_lease_on_another(monkeypatch: pytest.MonkeyPatch):
    """Each is renewed in a thread of its own."""
    go = threading.Event()
    renew = type(backend_for("locmem")).renew

    def hang(backend: Backend, *arguments: Any) -> Any:
        if backend is backend_for("default"):
            assert go.wait(PATIENCE)
        return renew(backend, *arguments)

    monkeypatch.setattr(type(backend_for("locmem")), "renew", hang)
    dead = create_workflow("shop", cache="default")
    lease = dead.cache.claim(["a"], 1.5)
    work = Held()
    flow = create_workflow("shop", cache="locmem", lease=1.5)
    threads = [threading.Thread(target=lambda: Sync().run(flow, stepping("a", work, key="a"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(4)
    work.go.set()
    for thread in threads:
        thread.join(PATIENCE)
    go.set()
    assert work.count == 1
    dead.cache.release(lease)


def test_what_was_read_ahead_is_used_once(voice: Voice, cache: Any):
    """The body may have changed it since; and what has an end is looked up when it is asked for."""
    flow = create_workflow("shop", cache=cache)
    voice.run(flow, stepping("a", lambda: 1, key="a", ttl=0.2))

    def body(step, deps):
        time.sleep(0.3)
        return (yield step("a", lambda: 2, key="a"))

    assert voice.run(flow, body, prefetch=["a"]) == Ok(2)
