"""Every promise is kept in both voices and over every cache."""

from __future__ import annotations

from typing import Any

import pytest

from stepflows import Event
from tests.conftest import CACHE_ALIASES, prepared
from tests.maplikes import AsyncMap, OwnMapping, SyncMap
from tests.memcached import MEMCACHED
from tests.voices import Async, Sync, Voice

MAPS: dict[str, Any] = {"dict": dict, "mapping": OwnMapping, "maplike": SyncMap, "async maplike": AsyncMap}


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def voice(request: pytest.FixtureRequest) -> Voice:
    """``run`` and ``arun`` in turn."""
    chosen: Voice = request.param()
    return chosen


@pytest.fixture(
    params=[
        *MAPS,
        *(
            pytest.param(alias, marks=[pytest.mark.django_db(transaction=True)] if alias == "database" else [])
            for alias in CACHE_ALIASES
        ),
        *MEMCACHED,
    ]
)
def cache(request: pytest.FixtureRequest) -> Any:
    """Something to give as ``cache=``: each kind in turn, empty."""
    if request.param in MAPS:
        return MAPS[request.param]()
    return prepared(request.param, request)


@pytest.fixture
def every_cache(request: pytest.FixtureRequest, transactional_db: None) -> dict[str, Any]:
    """Each kind by its name, empty: for what takes its time, and is tried over all of them at once."""
    aliases = {alias: prepared(alias, request) for alias in [*CACHE_ALIASES, *MEMCACHED]}
    return {name: kind() for name, kind in MAPS.items()} | aliases


@pytest.fixture
def events() -> list[Event]:
    """A listener's notebook: give its ``append`` as ``on_event``."""
    return []
