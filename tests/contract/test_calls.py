"""How a workflow is made and called."""

from __future__ import annotations

import asyncio
import copy
from types import SimpleNamespace
from typing import Any

import pytest

import stepflows
from stepflows import DuplicateWorkflow, Err, InvalidOption, InvalidUse, Ok, StepCache, create_workflow, workflow
from stepflows.registry import registry
from tests.calls import Calls
from tests.voices import Voice


@pytest.fixture
def names():
    """Names under which a test registers workflows."""
    taken = ["shop", "other"]
    yield taken
    for name in taken:
        registry.remove(name)


def test_a_body_is_given_steps_dependencies_and_its_arguments(voice: Voice):
    """The body's own arguments follow step and deps, by position or by name."""

    def body(step, deps, order_id, *, urgent):
        user = yield step("fetch", lambda: deps.fetch(order_id))
        return user, urgent

    flow = create_workflow("shop", {"fetch": lambda order_id: f"user {order_id}"})
    assert voice.run(flow, body, 7, urgent=True) == Ok(("user 7", True))


def test_dependencies_are_a_mapping_or_any_object(voice: Voice):
    """Both are read by attribute; a mapping is looked into at each use."""

    def body(step, deps):
        return (yield step("ask", lambda: deps.answer()))

    given: dict[str, Any] = {"answer": lambda: 1}
    flow = create_workflow("shop", given)
    assert voice.run(flow, body) == Ok(1)
    given["answer"] = lambda: 2
    assert voice.run(flow, body) == Ok(2)
    assert voice.run(flow.using(deps=SimpleNamespace(answer=lambda: 3)), body) == Ok(3)


def test_dependencies_can_be_copied():
    """As tests like to do."""
    flow = create_workflow("shop", {"a": [1]})
    assert flow.run(lambda step, deps: copy.deepcopy(deps).a) == Ok([1])


def test_dependencies_are_read_by_name_too():
    """A mapping of dependencies still reads like one."""
    flow = create_workflow("shop", {"a": 1, "b": 2})
    assert flow.run(lambda step, deps: (deps["a"], list(deps))) == Ok((1, ["a", "b"]))


def test_a_missing_dependency_is_named():
    """The error says which dependencies there are."""
    flow = create_workflow("shop", {"charge": None})
    error = flow.run(lambda step, deps: deps.chagre).error
    assert isinstance(error, AttributeError)
    assert "'chagre'" in str(error)
    assert "charge" in str(error)
    assert "none" in str(create_workflow("shop").run(lambda step, deps: deps.x).error)


def test_run_refuses_an_async_body_and_says_arun():
    """A TypeError, raised and not returned."""

    async def body(step, deps): ...

    with pytest.raises(TypeError, match="arun"):
        create_workflow("shop").run(body)


def test_run_refuses_a_body_that_turns_out_to_be_async():
    """A lambda hides its coroutine until it is called."""

    async def body(step, deps): ...

    with pytest.raises(TypeError, match="arun"):
        create_workflow("shop").run(lambda step, deps: body(step, deps))


def test_arun_takes_a_sync_body():
    """It runs in a thread, with the steps of a sync body, async functions included."""

    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    def body(step, deps, number):
        one = step("sync", lambda: number + 1, key="one")
        return step("async", lambda: double(one), key="two")

    cache: dict[str, Any] = {}
    assert asyncio.run(create_workflow("shop", cache=cache).arun(body, number=1)) == Ok(4)
    assert cache == {"one": Ok(2), "two": Ok(4)}


def test_an_async_body_takes_sync_and_async_functions():
    """A sync function runs in a thread and never stops the loop."""

    async def asynchronous():
        return "async"

    async def body(step, deps):
        loop = asyncio.get_running_loop()

        def synchronous():
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            loop.call_soon_threadsafe(lambda: None)
            return "sync"

        return [await step("a", asynchronous), await step("b", synchronous), await step("c", lambda: asynchronous())]

    assert asyncio.run(create_workflow("shop").arun(body)) == Ok(["async", "sync", "async"])


def test_an_async_function_in_a_sync_body_is_awaited():
    """It goes through async_to_sync."""

    async def asynchronous():
        await asyncio.sleep(0)
        return 5

    assert create_workflow("shop").run(lambda step, deps: step("a", asynchronous)) == Ok(5)


def test_an_async_function_in_a_sync_body_on_a_loop_is_refused():
    """It cannot be waited for in the loop's own thread; no coroutine is left behind, and nothing is stored."""

    async def asynchronous(): ...

    async def main():
        return flow.run(lambda step, deps: step("a", asynchronous, key="a"))

    flow = create_workflow("shop", cache={})
    with pytest.raises(InvalidUse, match="arun"):
        asyncio.run(main())
    assert flow.cache == {}


def test_wrong_arguments_for_the_body_are_a_type_error():
    """Wrong use is raised, and names the argument."""

    async def abody(step, deps, order_id): ...

    with pytest.raises(InvalidUse, match="order_id"):
        create_workflow("shop").run(lambda step, deps, order_id: 1)
    with pytest.raises(InvalidUse, match="order_id"):
        asyncio.run(create_workflow("shop").arun(abody))


def test_a_type_error_inside_the_body_is_a_failure(voice: Voice):
    """Only the call itself can be wrong use."""

    def body(step, deps):
        yield step("a", lambda: 1)
        return 1 + "1"

    assert isinstance(voice.run(create_workflow("shop"), body).error, TypeError)


def test_a_decorated_body_runs_by_itself(names):
    """The decorated name has run and arun, and keeps its docstring."""

    @workflow("shop", deps={"double": lambda number: 2 * number}, cache={})
    def shop(step, deps, number):
        """Doubles."""
        return step("double", lambda: deps.double(number), key=f"double:{number}")

    assert shop.run(number=4) == Ok(8)
    assert asyncio.run(shop.arun(4)) == Ok(8)
    assert shop.__doc__ == "Doubles."
    assert registry.get("shop") is shop
    assert shop in registry.all()
    assert "shop" in repr(shop)


def test_a_decorated_async_body_runs_with_arun(names):
    """And run says so."""

    @workflow("shop", cache={})
    async def shop(step, deps, number):
        return await step("double", lambda: number * 2, key="double")

    assert asyncio.run(shop.arun(number=4)) == Ok(8)
    with pytest.raises(TypeError, match="arun"):
        shop.run(number=4)


def test_without_a_cache_a_decorated_workflow_uses_the_alias_of_the_settings(names, settings):
    """STEPFLOWS["CACHE"] is read at use."""

    @workflow("shop")
    def shop(step, deps):
        return step("a", lambda: 1, key="a")

    settings.STEPFLOWS = {"CACHE": "locmem"}
    assert shop.run() == Ok(1)
    assert StepCache("locmem", namespace="shop").get("a") == Ok(1)
    assert StepCache("default", namespace="shop").get("a") is None
    assert isinstance(shop.cache, StepCache)


def test_two_workflows_of_one_name_are_an_error_that_names_both_places(names):
    """At import, where the second one is defined."""

    @workflow("shop")
    def first(step, deps): ...

    with pytest.raises(DuplicateWorkflow, match=r"first.*test_calls.*second.*test_calls"):

        @workflow("shop")
        def second(step, deps): ...


def test_a_module_that_is_loaded_again_replaces_its_workflows(names):
    """As the autoreloader and interactive sessions do."""

    def define():
        @workflow("shop")
        def shop(step, deps): ...

        return shop

    assert define() is not define()
    assert registry.get("shop").place


def test_using_makes_a_changed_copy(names):
    """The original keeps what it has."""

    @workflow("shop", deps={"ask": lambda: "real"}, cache="locmem")
    def shop(step, deps):
        return step("ask", deps.ask, key="ask")

    mine: dict[str, Any] = {}
    assert shop.using(cache=mine, deps={"ask": lambda: "fake"}).run() == Ok("fake")
    assert mine == {"ask": Ok("fake")}
    assert shop.run() == Ok("real")
    assert shop.using(cache=mine).using(version=2).version == 2
    assert shop.using(cache=mine).cache is mine


def test_a_changed_copy_cannot_be_sent_to_a_worker(names):
    """A worker knows the registered workflow alone."""

    @workflow("shop")
    def shop(step, deps): ...

    with pytest.raises(InvalidUse, match="copy"):
        shop.using(cache={}).delay()
    with pytest.raises(InvalidUse, match="arguments"):
        shop.delay(1)


def test_delay_before_the_app_is_loaded_says_what_to_do(names, monkeypatch):
    """Nothing is lost in silence."""

    @workflow("shop")
    def shop(step, deps): ...

    monkeypatch.setattr(registry, "dispatcher", None)
    with pytest.raises(InvalidUse, match="INSTALLED_APPS"):
        shop.delay()


def test_a_key_without_its_name_is_refused(voice: Voice):
    """Nothing runs, and the message says how a key is given."""
    work = Calls(1)

    def body(step, deps):
        return (yield step("charge", work, "order:7"))

    with pytest.raises(InvalidUse, match=r"Workflow 'shop': (Async)?Step\.__call__\(\) takes .*key='order:7:charge'"):
        voice.run(create_workflow("shop"), body)
    assert work.count == 0


def test_workflow_cache_is_the_one_it_uses():
    """The very object for a Map, a StepCache for Django's caches, None for none."""
    mine: dict[str, Any] = {}
    assert create_workflow("shop", cache=mine).cache is mine
    assert create_workflow("shop").cache is None
    assert create_workflow("shop", cache="locmem").cache == StepCache("locmem", namespace="shop")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tll": 3}, InvalidUse, "'tll'.*'ttl'"),
        ({"wholly": 3}, InvalidUse, "Known are:"),
        ({"ttl": -1}, InvalidOption, "ttl"),
        ({"ttl": "soon"}, InvalidUse, "ttl"),
        ({"ttl": True}, InvalidUse, "ttl"),
        ({"ttl": float("nan")}, InvalidOption, "ttl"),
        ({"cache_errors": "yes"}, InvalidUse, "cache_errors"),
        ({"cache_errors": [int]}, InvalidUse, "cache_errors"),
        ({"retry": "often"}, InvalidUse, "retry"),
        ({"retry": 0}, InvalidOption, "attempts"),
        ({"on_cache_down": "hope"}, InvalidOption, "on_cache_down"),
        ({"on_event": 3}, InvalidUse, "on_event"),
        ({"version": 1.5}, InvalidUse, "version"),
        ({"cache": 42}, InvalidUse, "cache"),
        ({"cache": object()}, InvalidUse, "get"),
    ],
)
def test_a_wrong_option_is_named(options, error, message):
    """So are the workflow and the remedy."""
    with pytest.raises(error, match=message):
        create_workflow("shop", **options)
    with pytest.raises(error, match=message):
        create_workflow("shop").using(**options)


@pytest.mark.parametrize("name", ["", " shop", "a\nb", "x" * 201])
def test_a_workflow_needs_a_usable_name(name):
    """It is part of every key."""
    with pytest.raises(InvalidOption, match="name"):
        create_workflow(name)


def test_the_decorator_needs_its_name():
    """@workflow without parentheses is a common slip."""
    with pytest.raises(InvalidUse, match="name"):
        workflow(lambda step, deps: None)  # type: ignore[arg-type]


def test_every_public_name_is_there():
    """What __all__ promises can be imported."""
    for name in stepflows.__all__:
        assert getattr(stepflows, name) is not None


def test_a_body_may_return_a_result(voice: Voice):
    """Ok and Err are taken as they are; a plain value becomes Ok."""

    def returning(value):
        def body(step, deps):
            yield step("a", lambda: 1)
            return value

        return body

    flow = create_workflow("shop")
    assert voice.run(flow, returning(Ok(3))) == Ok(3)
    assert voice.run(flow, returning(Err("NO"))) == Err("NO")
    assert voice.run(flow, returning(None)) == Ok(None)


def test_nested_workflows_keep_to_themselves(voice: Voice):
    """A workflow may run another one inside a step."""
    inner = create_workflow("inner", cache={})
    flow = create_workflow("outer", cache={})
    work = Calls(5)

    def body(step, deps):
        return (yield step("outer", lambda: inner.run(lambda s, d: s("x", work, key="k")), key="k"))

    assert voice.run(flow, body) == Ok(5)
    assert voice.run(flow, body) == Ok(5)
    assert work.count == 1
    assert inner.cache == {"k": Ok(5)}


def test_an_async_body_that_forgot_to_await_is_refused():
    """What it returned would be a step that never ran."""

    async def body(step, deps):
        return step("fetch", lambda: 1)

    with pytest.raises(InvalidUse, match=r"'shop'.*await step"):
        asyncio.run(create_workflow("shop").arun(body))


@pytest.mark.parametrize("body", [5, None, "body"])
def test_a_body_must_be_callable(voice: Voice, body: Any):
    """And the error says what it was."""
    flow = create_workflow("shop")
    with pytest.raises(InvalidUse, match=r"'shop'.*must be a function"):
        asyncio.run(flow.arun(body)) if voice.is_async else flow.run(body)
    with pytest.raises(InvalidUse, match="must be a function"):
        workflow("shop")(body)


def test_a_generator_is_no_body():
    """Calling it would run nothing."""

    def body(step, deps):
        yield step("a", lambda: 1)

    async def abody(step, deps):
        yield await step("a", lambda: 1)

    flow = create_workflow("shop")
    with pytest.raises(InvalidUse, match="generator"):
        flow.run(body)
    with pytest.raises(InvalidUse, match="generator"):
        asyncio.run(flow.arun(abody))


def test_two_workflows_of_one_name_and_one_function_name_are_an_error(names):
    """As after copy and paste."""

    @workflow("shop")
    def shop(step, deps): ...

    with pytest.raises(DuplicateWorkflow):

        @workflow("shop")
        def shop(step, deps): ...


@pytest.mark.parametrize("arguments", [{"args": {"order_id": 1}}, {"args": "7"}, {"kwargs": [1]}])
def test_apply_async_takes_a_list_and_a_dict(names, arguments: Any):
    """Anything else would arrive as something else."""

    @workflow("shop")
    def shop(step, deps, order_id=None): ...

    with pytest.raises(InvalidUse, match="list or tuple"):
        shop.apply_async(**arguments)


def test_an_unknown_alias_is_named_with_the_workflow_before_anything_runs(voice: Voice):
    """Where it is used, because settings may come later."""
    flow = create_workflow("shop", cache="nowhere")
    work = Calls(1)

    def body(step, deps):
        yield step("a", work)

    with pytest.raises(InvalidUse, match=r"Workflow 'shop': There is no cache alias 'nowhere'"):
        voice.run(flow, body)
    assert work.count == 0
    with pytest.raises(InvalidUse, match="alias is empty"):
        create_workflow("shop", cache="")


@pytest.mark.django_db(transaction=True)
async def test_adelay_is_delay_for_async_code():
    """It writes the row in a thread."""
    flow = registry.get("flows.order")
    run = await flow.adelay(order_id=1)
    assert (run.workflow, run.kwargs) == ("flows.order", {"order_id": 1})
