"""What ``create_workflow`` and ``@workflow`` make."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, Unpack, overload

from asgiref.sync import sync_to_async
from celery import exceptions as celery_exceptions

from stepflows import signals
from stepflows.bodies import Body, check_body, not_taken
from stepflows.caches import StepCache, resolve
from stepflows.database import DjangoThreads
from stepflows.dependencies import Dependencies
from stepflows.engine import plan
from stepflows.engine.calls import is_async
from stepflows.engine.cancellation import Cancellation
from stepflows.engine.context import RunContext
from stepflows.engine.drivers import AsyncDriver, Driver
from stepflows.engine.events import Listener
from stepflows.engine.keys import Prefetch, check_name, check_prefetch
from stepflows.engine.loops import wait_for
from stepflows.engine.policy import UNSET, Unset, add_interrupts
from stepflows.engine.steps import AsyncStep, Step
from stepflows.errors import InvalidUse
from stepflows.options import Options, WorkflowOptions
from stepflows.registry import registry
from stepflows.results import Err, Result

if TYPE_CHECKING:
    from stepflows.models import Run

__all__ = ["RegisteredWorkflow", "Workflow", "create_workflow", "workflow"]

P = ParamSpec("P")


def _interrupts_of_gevent() -> tuple[type[BaseException], ...]:
    """How a worker whose tasks are greenlets ends one of them: when it is revoked, and by its time limit."""
    gevent: Any = sys.modules.get("gevent")
    return (gevent.GreenletExit, gevent.Timeout) if gevent else ()


# They end the task and say nothing about the step: the next worker has to run it again.
add_interrupts(
    celery_exceptions.SoftTimeLimitExceeded,
    celery_exceptions.TimeLimitExceeded,
    celery_exceptions.Terminated,
    celery_exceptions.TaskPredicate,
    celery_exceptions.TaskRevokedError,
    celery_exceptions.WorkerLostError,
    *_interrupts_of_gevent(),
)


class _Workflow:
    """A name, dependencies, a cache and options. Frozen by habit: :meth:`using` makes a changed copy."""

    def __init__(self, name: str, deps: Any, options: Options) -> None:
        self.name = check_name(name)
        self._deps = deps
        self._options = options
        try:
            self._cache = resolve(options.cache, name, options.version)
        except InvalidUse as error:
            raise type(error)(f"Workflow {name!r}: {error}") from error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    @property
    def deps(self) -> Any:
        """What bodies are given as their second argument."""
        if self._deps is None or isinstance(self._deps, Mapping):
            return Dependencies(self._deps or {})
        return self._deps

    @property
    def version(self) -> str | int | None:
        """Part of the scope of its keys."""
        return self._options.version

    @property
    def cache(self) -> Any:
        """The cache that this workflow uses: a :class:`~stepflows.StepCache`, or the Map that it was given."""
        return self._cache if isinstance(self._cache, StepCache) else self._options.cache

    def _copy(self, deps: Any, options: Options) -> Self:
        raise NotImplementedError

    def using(self, *, deps: Any = UNSET, **options: Unpack[WorkflowOptions]) -> Self:
        """A changed copy, for tests and one-off calls: ``checkout.using(cache={}, deps=fakes)``."""
        changed = Options.of(f"workflow {self.name!r}", self._options, options)
        return self._copy(self._deps if isinstance(deps, Unset) else deps, changed)

    def _run(
        self,
        body: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        prefetch: Prefetch = (),
        run_id: str | None = None,
        listeners: Sequence[Listener] = (),
        cancellation: Cancellation | None = None,
    ) -> Result[Any]:
        check_body(self.name, body)
        prefetch = check_prefetch(prefetch, f"workflow {self.name!r}")
        if is_async(body):
            raise InvalidUse(f"Workflow {self.name!r}: run was given an async body. Use: await workflow.arun(...).")
        listeners = self._listeners(signals.send, listeners)
        run = self._context(listeners, run_id)
        driver = Driver(self._cache, listeners, DjangoThreads(), cancellation)
        call = partial(Body(self.name, body, self.deps, args, kwargs).call, Step(run, driver))
        return driver.drive(plan.workflow(run, call, prefetch))

    async def _arun(
        self,
        body: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        prefetch: Prefetch = (),
        run_id: str | None = None,
        listeners: Sequence[Listener] = (),
        cancellation: Cancellation | None = None,
    ) -> Result[Any]:
        check_body(self.name, body)
        prefetch = check_prefetch(prefetch, f"workflow {self.name!r}")
        alisteners = self._listeners(signals.asend, listeners)
        run = self._context(alisteners, run_id)
        driver = AsyncDriver(self._cache, alisteners, DjangoThreads(), cancellation=cancellation)
        called = Body(self.name, body, self.deps, args, kwargs)
        if is_async(body):
            call = partial(called.acall, AsyncStep(run, driver))
            return await driver.drive(plan.workflow(run, call, prefetch))
        # In its thread the body is an ordinary sync one, with listeners called there.
        sync = Driver(self._cache, self._listeners(signals.send, listeners), DjangoThreads())
        try:
            call = partial(called.call, Step(run, sync))
            return await driver.drive(plan.workflow(run, call, prefetch))
        finally:
            # Nobody waits for a thread that is still at it after a cancellation.
            sync.cancellation.request()

    def _context(self, listeners: Sequence[Listener], run_id: str | None) -> RunContext:
        cache = self._cache
        if isinstance(cache, StepCache):
            try:
                cache.backend  # noqa: B018 - an alias that is not there shows here, before anything runs
            except InvalidUse as error:
                raise type(error)(f"Workflow {self.name!r}: {error}") from error
        return RunContext(
            self.name,
            policy=self._options.policy(f"workflow {self.name!r}"),
            caching=cache is not None,
            listening=bool(listeners),
            namespace=cache.namespace if isinstance(cache, StepCache) else self.name,
            run_id=run_id,
        )

    def _listeners(self, send: Callable[..., Any], others: Sequence[Listener]) -> list[Listener]:
        listeners = [*filter(None, [registry.tracer()]), *others]
        if self._options.on_event is not None:
            listeners.append(self._options.on_event)
        if signals.step_event.has_listeners(Workflow):
            listeners.append(partial(send, Workflow))
        return listeners


class Workflow(_Workflow):
    """A workflow that is given its body at each run. Made by :func:`create_workflow`."""

    def _copy(self, deps: Any, options: Options) -> Self:
        return type(self)(self.name, deps, options)

    def run(self, body: Callable[..., Any], /, *args: Any, prefetch: Prefetch = (), **kwargs: Any) -> Result[Any]:
        """Call ``body(step, deps, *args, **kwargs)`` and return its :data:`~stepflows.Result`.

        ``prefetch`` is a list of keys, or a prefix of them, that are looked up together before the body begins.
        A failure of a step or of the body arrives as ``Err``. Raises :exc:`TypeError` for an async body,
        :exc:`~stepflows.errors.InvalidStepKey` and :exc:`~stepflows.errors.StepKeyConflict`.
        """
        return self._run(body, args, kwargs, prefetch=prefetch)

    async def arun(
        self, body: Callable[..., Any], /, *args: Any, prefetch: Prefetch = (), **kwargs: Any
    ) -> Result[Any]:
        """Like :meth:`run`, on the event loop. An async body awaits its steps; a sync one runs in a thread."""
        return await self._arun(body, args, kwargs, prefetch=prefetch)


class RegisteredWorkflow(_Workflow, Generic[P]):
    """A workflow that carries its own body. Made by :func:`workflow`."""

    def __init__(
        self,
        name: str,
        deps: Any,
        options: Options,
        body: Callable[..., Any],
        original: RegisteredWorkflow[P] | None = None,
    ) -> None:
        super().__init__(name, deps, options)
        self.body = body
        self.module = body.__module__
        self.qualname = getattr(body, "__qualname__", type(body).__qualname__)
        self.__doc__ = body.__doc__
        self._original = original

    @property
    def place(self) -> str:
        """Where the body is defined."""
        code = getattr(inspect.unwrap(self.body), "__code__", None)
        return f"{self.module}.{self.qualname}" + (f" ({code.co_filename}:{code.co_firstlineno})" if code else "")

    def _copy(self, deps: Any, options: Options) -> Self:
        return type(self)(self.name, deps, options, self.body, self._original or self)

    @overload
    def run(self, *args: P.args, **kwargs: P.kwargs) -> Result[Any]: ...

    @overload
    def run(self, *args: Any, prefetch: Prefetch, **kwargs: Any) -> Result[Any]: ...

    def run(self, *args: Any, **kwargs: Any) -> Result[Any]:
        """Run here and now. A failure of a step or of the body arrives as ``Err``.

        ``prefetch`` is a list of keys, or a prefix of them, that are looked up together before the body begins.
        """
        return self._run(self.body, args, kwargs, prefetch=kwargs.pop("prefetch", ()))

    @overload
    async def arun(self, *args: P.args, **kwargs: P.kwargs) -> Result[Any]: ...

    @overload
    async def arun(self, *args: Any, prefetch: Prefetch, **kwargs: Any) -> Result[Any]: ...

    async def arun(self, *args: Any, **kwargs: Any) -> Result[Any]:
        """Run on this event loop."""
        return await self._arun(self.body, args, kwargs, prefetch=kwargs.pop("prefetch", ()))

    def execute(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        run_id: str,
        listeners: Sequence[Listener] = (),
        prefetch: Prefetch = (),
        cancellation: Cancellation | None = None,
    ) -> Result[Any]:
        """Run in this thread, whichever kind of body it is; for whoever keeps a record of the run.

        Raises :exc:`asyncio.CancelledError` once the ``cancellation`` has been requested.
        """
        options: dict[str, Any] = {"run_id": run_id, "listeners": listeners, "prefetch": prefetch}
        options["cancellation"] = cancellation
        if is_async(self.body):
            return wait_for(self._arun(self.body, args, kwargs, **options))  # type: ignore[no-any-return]
        return self._run(self.body, args, kwargs, **options)

    def forget(self, keys: Sequence[str], *, errors_only: bool = False) -> None:
        """Remove what is cached under these keys, or of that only the failures.

        Raises :exc:`~stepflows.errors.CacheUnavailable`.
        """
        cache = self._cache
        if cache is None or not keys:
            return
        found = cache.load_many(keys) if errors_only else [None] * len(keys)
        for key, each in zip(keys, found, strict=True):
            if not errors_only or isinstance(each, Err):
                cache.delete(key)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        """Have a Celery worker run it; returns its :class:`~stepflows.models.Run`, published on commit."""
        return self.apply_async(args, kwargs)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Run:
        """Like :meth:`delay`, from async code."""
        return await sync_to_async(self.delay)(*args, **kwargs)

    def apply_async(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Run:
        """Like :meth:`delay`, with Celery's ``countdown``, ``eta``, ``queue`` or ``priority``.

        Raises :exc:`~stepflows.errors.InvalidUse` for arguments that the body does not take and for a changed copy, and
        :exc:`~stepflows.errors.NotCacheable` for arguments that cannot be kept.
        """
        if self._original is not None:
            raise InvalidUse(
                f"Workflow {self.name!r}: this is a changed copy made by using(), which no worker knows. "
                "Send the registered workflow, or run the copy here."
            )
        kwargs = kwargs or {}
        if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
            raise InvalidUse(
                f"Workflow {self.name!r}: apply_async takes args as a list or tuple and kwargs as a dict, not "
                f"{args!r} and {kwargs!r}."
            )
        try:
            inspect.signature(self.body).bind(None, None, *args, **kwargs)
        except TypeError as error:
            raise not_taken(self.name, error) from None
        return registry.dispatch(self.name, tuple(args), kwargs, options)


def create_workflow(name: str, deps: Any = None, **options: Unpack[WorkflowOptions]) -> Workflow:
    """A workflow without a body of its own. Without ``cache``, keys are ignored.

    ``deps`` is a mapping or any object; bodies read its attributes. Options: ``cache``, ``version``, ``ttl``,
    ``cache_errors``, ``retry``, ``on_event``, ``on_cache_down``, ``lease`` (seconds) and ``single_flight``.
    """
    return Workflow(name, deps, Options.of(f"workflow {name!r}", Options(), options))


def workflow(
    name: str, *, deps: Any = None, **options: Unpack[WorkflowOptions]
) -> Callable[[Callable[Concatenate[Any, Any, P], Any]], RegisteredWorkflow[P]]:
    """Register the decorated body under a name. Without ``cache``, the alias ``STEPFLOWS["CACHE"]`` is used.

    Raises :exc:`~stepflows.errors.DuplicateWorkflow` when the name is taken.
    """
    if not isinstance(name, str):
        raise InvalidUse("@workflow needs a name: write @workflow('checkout').")
    checked = Options.of(f"workflow {name!r}", Options(cache=StepCache()), options)

    def register(body: Callable[Concatenate[Any, Any, P], Any]) -> RegisteredWorkflow[P]:
        check_body(name, body)
        registered: RegisteredWorkflow[P] = RegisteredWorkflow(name, deps, checked, body)
        registry.add(registered)
        return registered

    return register
