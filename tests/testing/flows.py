"""Workflows that are registered for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stepflows import Err, workflow
from stepflows.registry import registry

__all__ = ["again", "deliver", "order", "order_async", "pay", "registered"]


@workflow("testing.pay", cache="locmem")
def pay(step, deps, order_id):
    """Four outcomes are possible: paid, paid before, declined, and declined before."""
    step("load", lambda: order_id, key=f"order:{order_id}")
    return step("charge", lambda: Err("DECLINED") if order_id == 13 else "paid", key=f"order:{order_id}:charge")


@workflow("testing.deliver", cache="locmem")
def deliver(step, deps, order_id):
    return step("send", lambda: "delivered", key=f"order:{order_id}:send")


@workflow("testing.order", cache="locmem")
def order(step, deps, order_id):
    """Queues a run itself."""
    receipt = step("charge", lambda: "paid", key=f"order:{order_id}:charge")
    deliver.delay(order_id)
    return receipt


@workflow("testing.order_async", cache="locmem")
async def order_async(step, deps, order_id):
    receipt = await step("charge", lambda: "paid", key=f"order:{order_id}:charge")
    await deliver.adelay(order_id)
    return receipt


@workflow("testing.again", cache="locmem")
def again(step, deps, times):
    """Queues itself."""
    if times:
        again.delay(times - 1)
    return times


_ALL = [pay, deliver, order, order_async, again]


@contextmanager
def registered() -> Iterator[None]:
    for each in _ALL:
        registry.add(each)
    try:
        yield
    finally:
        _remove()


def _remove() -> None:
    for each in _ALL:
        registry.remove(each.name)


# Other tests look at all that are registered.
_remove()
