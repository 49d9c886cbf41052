"""Errors are results too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from stepflows import CacheUnavailable, Err, NotCacheable, Ok, StepFailed, create_workflow
from tests.calls import Calls
from tests.contract.test_steps import stepping
from tests.voices import Voice


class Declined(Exception):
    """An exception as payment libraries write them: arguments of its own, attributes, keywords only."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"declined: {code}")
        self.code = code
        self.reason = reason


def test_an_exception_is_raised_again_without_running(voice: Voice, cache: Any):
    """The same class, the same arguments, the same attributes, in every later run."""
    work = Calls(Declined(51, reason="no money"), raises=True)
    flow = create_workflow("shop", cache=cache)
    for _ in range(3):
        error = voice.run(flow, stepping("charge", work, key="order:7")).error
        assert type(error) is Declined
        assert (error.args, error.code, error.reason) == (("declined: 51",), 51, "no money")
    assert work.count == 1


def test_the_cause_is_kept(voice: Voice, cache: Any):
    """That of an exception and that of an Err."""
    error = LookupError("out")
    error.__cause__ = KeyError("in")
    flow = create_workflow("shop", cache=cache)
    for _ in range(2):
        result = voice.run(flow, stepping("a", Calls(error, raises=True), key="a"))
        assert repr(result.cause) == "KeyError('in')"
        assert voice.run(flow, stepping("b", lambda: Err("NO", {"code": 51}), key="b")) == Err("NO", {"code": 51})


def test_clearing_the_key_makes_it_run_again(voice: Voice, cache: Any):
    """Whatever the cache."""
    work = Calls(ValueError("no"), raises=True)
    flow = create_workflow("shop", cache=cache)
    voice.run(flow, stepping("a", work, key="a"))
    if hasattr(flow.cache, "delete"):
        answer = flow.cache.delete("a")
        if asyncio.iscoroutine(answer):
            asyncio.run(answer)
    else:
        del flow.cache["a"]
    voice.run(flow, stepping("a", work, key="a"))
    assert work.count == 2


@pytest.mark.parametrize(
    ("cache_errors", "error", "kept"),
    [
        (True, ValueError("x"), True),
        (True, Err("NO"), True),
        (False, ValueError("x"), False),
        (False, Err("NO"), False),
        ((ValueError, KeyError), ValueError("x"), True),
        ((ValueError, KeyError), KeyError("x"), True),
        (LookupError, KeyError("x"), True),
        ([ValueError], TypeError("x"), False),
        (ValueError, Err("NO"), False),
        (StepFailed, Err("NO"), True),
        (StepFailed, ValueError("x"), False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", ["step", "workflow", "settings"])
def test_cache_errors_says_which_errors_are_kept(voice: Voice, settings, place, cache_errors, error, kept):
    """On a step, a workflow, or in the settings."""
    work = Calls(error, raises=isinstance(error, Exception))
    options = {"cache_errors": cache_errors}
    flow = create_workflow("shop", cache={}, **(options if place == "workflow" else {}))
    if place == "settings":
        settings.STEPFLOWS = {"CACHE_ERRORS": cache_errors}
    for _ in range(2):
        voice.run(flow, stepping("a", work, key="a", **(options if place == "step" else {})))
    assert work.count == (1 if kept else 2)


def test_a_step_has_the_last_word_on_cache_errors(voice: Voice):
    """Then the workflow, then the settings."""
    flow = create_workflow("shop", cache={}, cache_errors=False)
    work = Calls(ValueError(), raises=True)
    for _ in range(2):
        voice.run(flow, stepping("a", work, key="a", cache_errors=True))
    assert work.count == 1


@pytest.mark.parametrize(
    "error",
    [
        SoftTimeLimitExceeded(),
        Ignore(),
        Reject(),
        Retry(),
        CacheUnavailable("away"),
        NotCacheable("inner"),
        ExceptionGroup("group", [ValueError(), ExceptionGroup("inner", [SoftTimeLimitExceeded()])]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_says_nothing_about_the_step_is_never_stored(voice: Voice, error: Exception):
    """Nor tried again, whatever is set."""
    work = Calls(error, raises=True)
    flow = create_workflow("shop", cache={}, cache_errors=True, retry=3)
    for _ in range(2):
        result = voice.run(flow, stepping("a", work, key="a", cache_errors=type(error)))
        assert result.error is error
    assert work.count == 2
    assert flow.cache == {}


def test_a_cancellation_is_never_stored():
    """The step runs again in the next run."""

    async def main():
        flow = create_workflow("shop", cache={})

        async def body(step, deps):
            return await step("a", asyncio.Event().wait, key="a")

        run = asyncio.ensure_future(flow.arun(body))
        for _ in range(3):
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert flow.cache == {}

    asyncio.run(main())


def test_the_traceback_of_a_replayed_error_does_not_grow(voice: Voice):
    """A dict hands out the same exception object each time."""
    flow = create_workflow("shop", cache={})
    work = Calls(ValueError("no"), raises=True)

    def depth() -> int:
        error = voice.run(flow, stepping("a", work, key="a")).error
        frames, traceback = 0, error.__traceback__
        while traceback:
            frames, traceback = frames + 1, traceback.tb_next
        return frames

    depth()
    assert depth() == depth()


def test_the_value_of_a_step_that_cannot_be_kept_is_refused(voice: Voice, cache_alias: str):
    """NotCacheable arrives as Err, names the step, the place inside the value and what to return; nothing is stored."""
    flow = create_workflow("shop", cache=cache_alias)
    work = Calls({"rows": [1, {"owner": lambda: 1}]})
    result = voice.run(flow, stepping("load", work, key="user:1"))
    assert isinstance(result.error, NotCacheable)
    assert "'shop', step 'load' (key 'user:1')" in str(result.error)
    assert '["rows"][1]["owner"]' in str(result.error)
    assert result.step.key == "user:1"
    assert flow.cache.get("user:1") is None
    assert len(flow.cache) == 0


def test_an_error_that_cannot_be_kept_is_the_cause_of_the_refusal(voice: Voice, cache_alias: str):
    """So that it is not lost."""
    flow = create_workflow("shop", cache=cache_alias)
    unkeepable = object()
    result = voice.run(flow, stepping("load", lambda: Err(unkeepable), key="a"))
    assert isinstance(result.error, NotCacheable)
    assert result.cause is unkeepable


def test_in_a_mapping_anything_can_be_kept(voice: Voice):
    """It stays in memory as it is."""
    value = object()
    flow = create_workflow("shop", cache={})
    for _ in range(2):
        assert voice.run(flow, stepping("a", lambda: value, key="a")) == Ok(value)
