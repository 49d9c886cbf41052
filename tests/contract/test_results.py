"""What runs come to."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from stepflows import Err, FailedStep, InvalidUse, Ok, StepFailed, create_workflow
from tests.calls import Calls
from tests.voices import Voice


def one_step(function, **options):
    def body(step, deps):
        return (yield step("charge", function, **options))

    return body


def test_results_are_frozen_comparable_and_matchable():
    """Values, in short."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ok(1).value = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Err(1).error = 2  # type: ignore[misc]
    assert Ok(1) == Ok(1) != Ok(2)
    assert Err("a") == Err("a", step=FailedStep("x")) != Err("b")
    assert Err("a", "why") != Err("a")
    match Err("NO", "why"):
        case Err(error, cause):
            assert (error, cause) == ("NO", "why")
    match Ok(3):
        case Ok(value):
            assert value == 3


def test_results_say_whether_they_are_ok_and_unwrap():
    """An Err raises its error: an exception as itself, anything else as StepFailed."""
    assert Ok(1).ok
    assert Ok(1).unwrap() == 1
    assert Ok(1).unwrap_or(2) == 1
    assert not Err("NO").ok
    assert Err("NO").unwrap_or(2) == 2
    with pytest.raises(StepFailed) as raised:
        Err("NO", "why").unwrap()
    assert (raised.value.error, raised.value.cause) == ("NO", "why")
    with pytest.raises(ZeroDivisionError):
        Err(ZeroDivisionError()).unwrap()


def test_an_exception_out_of_a_step_is_the_error(voice: Voice):
    """The very exception, its cause, and the step it came from."""
    error = ValueError("broken")
    error.__cause__ = KeyError("why")
    result = voice.run(create_workflow("shop", cache={}), one_step(Calls(error, raises=True), key="order:7"))
    assert result.error is error
    assert result.cause is error.__cause__
    assert result.step == FailedStep("charge", "order:7", replayed=False)


def test_an_err_out_of_a_step_is_the_error(voice: Voice):
    """The error that the step returned, and what it gave beside it."""
    result = voice.run(create_workflow("shop", cache={}), one_step(lambda: Err("DECLINED", "no money"), key="order:7"))
    assert result == Err("DECLINED", "no money")
    assert result.step == FailedStep("charge", "order:7", replayed=False)


def test_a_body_may_catch_either_failure(voice: Voice):
    """An exception as itself, an Err as StepFailed."""

    def body(step, deps):
        caught = []
        try:
            yield step("a", Calls(ZeroDivisionError("no"), raises=True), key="a")
        except ZeroDivisionError as error:
            caught.append(str(error))
        try:
            yield step("b", lambda: Err("NOT_FOUND", 404), key="b")
        except StepFailed as error:
            caught += [error.error, error.cause, error.step]
        return caught

    flow = create_workflow("shop", cache={})
    assert voice.run(flow, body) == Ok(["no", "NOT_FOUND", 404, FailedStep("b", "b", replayed=False)])
    assert voice.run(flow, body) == Ok(["no", "NOT_FOUND", 404, FailedStep("b", "b", replayed=True)])


def test_step_failed_says_which_step_and_why():
    """In its message, for logs and tracebacks."""
    assert str(StepFailed("NO", None, FailedStep("charge", "order:7"))) == (
        "step 'charge' (key 'order:7') failed with 'NO'"
    )
    assert str(StepFailed("NO", None, FailedStep("charge"))) == "step 'charge' failed with 'NO'"
    assert str(StepFailed("NO")) == "the workflow failed with 'NO'"


def test_a_failure_of_the_body_itself_has_no_step(voice: Voice):
    """Nor has an exception raised after a step's was caught."""

    def body(step, deps):
        try:
            yield step("a", Calls(ZeroDivisionError(), raises=True))
        except ZeroDivisionError as error:
            raise LookupError from error

    result = voice.run(create_workflow("shop"), body)
    assert isinstance(result.error, LookupError)
    assert isinstance(result.cause, ZeroDivisionError)
    assert result.step is None


def test_a_failed_result_of_another_workflow_can_be_unwrapped(voice: Voice):
    """Its error stays what it was."""
    inner = create_workflow("inner")

    def body(step, deps):
        return (yield step("inner", lambda: inner.run(lambda s, d: Err("NO", "why")).unwrap(), key="k"))

    flow = create_workflow("outer", cache={})
    assert voice.run(flow, body) == Err("NO", "why")
    assert flow.cache == {"k": Err("NO", "why")}


@pytest.mark.parametrize("control", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, InvalidUse])
def test_what_is_no_failure_is_let_through_and_never_stored(voice: Voice, control):
    """Out of a step and out of a body."""

    def broken(step, deps):
        yield step("a", lambda: 1)
        raise control

    flow = create_workflow("shop", cache={})
    for body in (one_step(Calls(control, raises=True), key="a"), broken):
        if control is KeyboardInterrupt and voice.is_async:
            continue  # asyncio itself ends its loop at once on this one
        with pytest.raises(control):
            voice.run(flow, body)
    assert flow.cache == {}


def test_a_failed_run_that_the_body_returns_keeps_its_step(voice: Voice):
    """It says where it failed, in whatever workflow that was."""
    inner = create_workflow("inner")

    def body(step, deps):
        yield step("a", lambda: 1)
        return inner.run(lambda s, d: s("charge", lambda: Err("NO"), key="k"))

    assert voice.run(create_workflow("outer"), body).step == FailedStep("charge", "k")


@pytest.mark.parametrize("control", [KeyboardInterrupt, asyncio.CancelledError])
def test_a_group_that_holds_what_is_no_failure_is_none_either(voice: Voice, control):
    """Task groups wrap whatever they meet."""
    group = BaseExceptionGroup("group", [ValueError(), control()])
    flow = create_workflow("shop", cache={})
    with pytest.raises(BaseExceptionGroup):
        voice.run(flow, one_step(Calls(group, raises=True), key="a"))
    assert flow.cache == {}


def test_stop_iteration_is_a_failure_like_any_other(voice: Voice):
    """Generators and coroutines make something else of it unless one takes care."""
    for function in (Calls(StopIteration("end"), raises=True), lambda: next(iter(()))):
        result = voice.run(create_workflow("shop", cache={}), one_step(function, key="a"))
        assert isinstance(result.error, StopIteration)


def test_stop_iteration_out_of_an_async_body_is_the_error():
    """Python turns it into a RuntimeError on its way out of a coroutine; the run knows better."""

    async def body(step, deps):
        await step("a", Calls(StopIteration("end"), raises=True), key="a")

    result = asyncio.run(create_workflow("shop", cache={}).arun(body))
    assert isinstance(result.error, StopIteration)
    assert result.step == FailedStep("a", "a")


def test_a_runtime_error_of_the_body_stays_one():
    """The care taken for StopIteration mistakes nothing else."""

    async def body(step, deps):
        raise RuntimeError("mine")

    assert str(asyncio.run(create_workflow("shop").arun(body)).error) == "mine"
