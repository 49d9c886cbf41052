"""Single flight where what is stored is damaged, or past its time: no reason for a step to run twice.

The second is no rare thing: a cache that counts whole seconds keeps an entry up to two seconds beyond its ttl.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepflows import StepCache
from stepflows.caches import backend_for
from stepflows.caches.backend import Write
from stepflows.caches.codec import current_codec
from stepflows.caches.names import Name
from stepflows.engine.cache import Busy, Claimed, Entry, Lease
from stepflows.results import Ok, Stamp
from tests.conftest import prepared

OURS = Ok(1, stamp=Stamp("label"))


class Interrupted:
    """A backend after whose first answer to this method something else happens before the caller has it."""

    def __init__(self, backend: Any, method: str, happens: Callable[[], None]) -> None:
        self._backend = backend
        self._method = method
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._backend, name)
        if name != self._method:
            return method
        self._method = ""

        def call(*args: Any, **options: Any) -> Any:
            answer = method(*args, **options)
            self._happens()
            return answer

        return call


@pytest.fixture(params=["damaged", "past its time"])
def data(request) -> bytes:
    if request.param == "damaged":
        return b"damaged"
    return current_codec().encode(Ok(0, stamp=Stamp("label", expires_at=1.0)), "useless", "k")


@pytest.fixture(params=["locmem", "redis", "django_redis"])
def cache(request, data) -> StepCache:
    """With that under ``k``."""
    alias = prepared(request.param, request)
    backend_for(alias).write([Write(Name("useless", "k"), data, replace=True)])
    return StepCache(alias, namespace="useless")


@pytest.fixture
def interrupt(cache, monkeypatch):
    """Have something happen between two requests of one call."""

    def interrupt(method: str, happens: Callable[[], None]) -> None:
        backend = Interrupted(cache.backend, method, happens)
        monkeypatch.setattr(StepCache, "backend", property(lambda cache: backend))

    return interrupt


def claimed(cache: StepCache) -> Claimed:
    return cache.claim(["k"], 30)[0]


def test_the_lease_stands_until_the_result_is_stored(cache, interrupt):
    """Whoever waits is not granted it in between, and so does not run the step a second time."""
    lease = claimed(cache)
    assert isinstance(lease, Lease)
    meanwhile: list[Claimed] = []
    interrupt("write", lambda: meanwhile.append(claimed(cache)))
    assert cache.store([Entry("k", OURS, lease=lease)]) == [OURS]
    [other] = meanwhile
    assert other == OURS or isinstance(other, Busy)
    assert claimed(cache) == OURS


def test_a_result_that_is_stored_during_a_claim_is_found(cache, interrupt):
    """It was stored after the claim saw what is useless, and the step must not run a second time."""
    lease = claimed(cache)
    assert isinstance(lease, Lease)

    def store() -> None:
        cache.store([Entry("k", OURS, lease=lease)])

    interrupt("claim", store)
    assert claimed(cache) == OURS
