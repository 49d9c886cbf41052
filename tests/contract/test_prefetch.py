"""Keys that are read before the body begins."""

from __future__ import annotations

from typing import Any

import pytest

from stepflows import CacheUnavailable, Err, InvalidStepKey, InvalidUse, Ok, create_workflow, workflow
from stepflows.registry import registry
from tests.calls import Calls
from tests.maplikes import BrokenMap, SyncMap
from tests.voices import Voice


def asking(keys: list[str], work: Any, **options: Any):
    """A body that asks for these keys."""

    def body(step, deps):
        values = []
        for key in keys:
            values.append((yield step("step", work, key=key, **options)))  # noqa: PERF401 - no yield in comprehensions
        return values

    return body


@pytest.fixture
def keys() -> list[str]:
    return [f"user:{number}" for number in range(5)]


@pytest.mark.parametrize("prefetch", ["list", "prefix"])
def test_what_was_read_ahead_is_used(voice: Voice, cache: Any, keys: list[str], prefetch: str):
    """As if each had been looked up; what was not there is executed."""
    flow = create_workflow("shop", cache=cache)
    voice.run(flow, asking(keys[:3], lambda: "stored"))
    work = Calls("executed")
    result = voice.run(flow, asking(keys, work), prefetch=keys if prefetch == "list" else "user:")
    assert result == Ok(["stored"] * 3 + ["executed"] * 2)
    assert work.count == 2


def test_many_keys_are_one_round_trip_for_500(voice: Voice, redis_alias: str, commandstats: Any):
    """And then none at all, whatever the step."""
    keys = [f"user:{number}" for number in range(1001)]
    flow = create_workflow("shop", cache=redis_alias)
    for key in keys:
        flow.cache.set(key, Ok(key))
    with commandstats() as asked:
        assert voice.run(flow, asking(keys, Calls()), prefetch=keys) == Ok(keys)
    assert asked == {"mget": 3}


def test_a_map_uses_what_was_read_ahead(voice: Voice, redis_alias: str, commandstats: Any):
    """It looks up only the others."""
    flow = create_workflow("shop", cache=redis_alias)
    for number in range(10):
        flow.cache.set(str(number), Ok(number))

    def body(step, deps):
        return (yield step.map("map", range(10), Calls(), key=str))

    with commandstats() as asked:
        assert voice.run(flow, body, prefetch=list(map(str, range(10)))) == Ok(list(range(10)))
    assert asked == {"mget": 1}


def test_a_refresh_does_not_use_it(voice: Voice, cache: Any):
    """Nor does what comes after the refresh."""
    flow = create_workflow("shop", cache=cache)
    voice.run(flow, asking(["a"], lambda: "old"))

    def body(step, deps):
        first = yield step("step", lambda: "new", key="a", refresh=True)
        second = yield step("step", lambda: "newest", key="a")
        return first, second

    assert voice.run(flow, body, prefetch=["a"]) == Ok(("new", "new"))


def test_an_error_that_was_read_ahead_is_replayed(voice: Voice, cache: Any):
    """As from the cache, which it is."""
    flow = create_workflow("shop", cache=cache)
    voice.run(flow, asking(["a"], lambda: Err("NO")))
    result = voice.run(flow, asking(["a"], lambda: 1), prefetch=["a"])
    assert result == Err("NO")
    assert result.step.replayed


def test_a_cache_that_is_away_is_each_steps_affair(voice: Voice, caplog: pytest.LogCaptureFixture):
    """Nothing is read ahead, and the steps say what that means."""
    flow = create_workflow("shop", cache=BrokenMap())
    result = voice.run(flow, asking(["a"], lambda: 1), prefetch=["a"])
    assert isinstance(result.error, CacheUnavailable)
    assert result.step.key == "a"
    assert "nothing could be read ahead" in caplog.text


def test_a_cache_that_cannot_list_has_no_prefixes(voice: Voice, caplog: pytest.LogCaptureFixture):
    """It is said, and the run goes on without."""
    flow = create_workflow("shop", cache=SyncMap())
    assert voice.run(flow, asking(["a"], lambda: 1), prefetch="a") == Ok([1])
    assert "cannot say which keys it holds" in caplog.text


def test_without_a_cache_nothing_is_read(voice: Voice):
    """Keys are ignored there as well."""
    assert voice.run(create_workflow("shop"), asking(["a"], lambda: 1), prefetch=["a"]) == Ok([1])


def test_a_registered_workflow_takes_it(monkeypatch: pytest.MonkeyPatch):
    """Beside the arguments of its body, in both voices."""
    monkeypatch.setattr(registry, "_workflows", {})

    @workflow("shop", cache={"a": Ok(5)})
    def shop(step, deps, order_id):
        return step("a", Calls(), key="a") + order_id

    assert shop.run(order_id=1, prefetch=["a"]) == Ok(6)


async def test_an_async_one_as_well(monkeypatch: pytest.MonkeyPatch):
    """With arun."""
    monkeypatch.setattr(registry, "_workflows", {})

    @workflow("shop", cache={"a": Ok(5)})
    async def shop(step, deps, order_id):
        return await step("a", Calls(), key="a") + order_id

    assert await shop.arun(order_id=1, prefetch="a") == Ok(6)


@pytest.mark.parametrize(("prefetch", "error"), [(5, InvalidUse), ([5], InvalidStepKey), ([" a"], InvalidStepKey)])
def test_what_cannot_be_keys_is_refused(voice: Voice, prefetch: Any, error: type[Exception]):
    """Before anything runs."""
    with pytest.raises(error, match="prefetch"):
        voice.run(create_workflow("shop", cache={}), asking(["a"], Calls()), prefetch=prefetch)
