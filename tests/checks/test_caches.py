"""Caches that forget, that nobody shares, or that promise too little."""

from __future__ import annotations

import re

import pytest
from django.core.cache.backends.locmem import LocMemCache

from stepflows import workflow
from stepflows.checks import check_caches
from tests.checks.bodies import ids

SHARED = {
    "BACKEND": "django_redis.cache.RedisCache",
    "LOCATION": "redis://127.0.0.1:1/0",
}


def test_good_caches_are_left_alone(settings):
    """A shared cache that keeps everything, and mappings, which are nobody's settings."""
    settings.CACHES = {"default": SHARED}
    settings.STEPFLOWS = {"CACHE": "default"}

    @workflow("kept", cache={})
    def kept(step, deps): ...

    assert check_caches() == []


def test_an_unknown_alias_is_an_error_that_names_its_user(settings):
    """The setting's, and a workflow's."""
    settings.CACHES = {"default": SHARED}
    settings.STEPFLOWS = {"CACHE": "steps"}

    @workflow("checked", cache="nowhere")
    def checked(step, deps): ...

    found = [message for message in check_caches() if message.id == "stepflows.E002"]
    assert [("'steps'" in str(m.msg) or "'checked'" in str(m.msg)) for m in found] == [True, True]
    assert "default" in str(found[0].hint)


@pytest.mark.parametrize("backend", ["locmem.LocMemCache", "dummy.DummyCache"])
def test_a_cache_of_one_process_is_a_warning(settings, backend):
    """No worker would see it."""
    options = {"OPTIONS": {"MAX_ENTRIES": 1_000_000}}
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{backend}", **options}}
    settings.STEPFLOWS = {}
    assert ids(check_caches()) == ["stepflows.W001"]


@pytest.mark.parametrize(
    ("backend", "others"), [("filebased.FileBasedCache", ["stepflows.W003"]), ("db.DatabaseCache", [])]
)
def test_a_cache_that_culls_is_a_warning(settings, tmp_path, backend, others):
    """Unless it holds a great many."""
    alias = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": str(tmp_path)}
    settings.STEPFLOWS = {}
    settings.CACHES = {"default": alias}
    assert ids(check_caches()) == [*others, "stepflows.W002"]
    settings.CACHES = {"default": {**alias, "OPTIONS": {"MAX_ENTRIES": 1_000_000}}}
    assert ids(check_caches()) == others


class Unknown(LocMemCache):
    """Somebody's own cache, with values kept in a way of its own."""

    def set(self, key, value, timeout=None, version=None):
        super().set(key, value, timeout, version)


@pytest.mark.parametrize(
    ("backend", "problem", "remedy"),
    [
        ("django.core.cache.backends.filebased.FileBasedCache", "FileBasedCache.*network file system", "one machine"),
        ("django.core.cache.backends.memcached.PyMemcacheCache", "PyMemcacheCache.*evicts.*run again", "django-redis"),
        ("django.core.cache.backends.memcached.PyLibMCCache", "PyLibMCCache.*cannot list", "django-redis"),
        ("tests.checks.test_caches.Unknown", "Unknown.*own serializer.*add", "Django ships"),
    ],
)
def test_a_cache_that_promises_too_little_is_a_warning(settings, tmp_path, backend, problem, remedy):
    """It says what is not certain and what is better, and asks no server and no client library."""
    alias = {"BACKEND": backend, "LOCATION": str(tmp_path), "OPTIONS": {"MAX_ENTRIES": 1_000_000}}
    settings.CACHES = {"default": alias}
    settings.STEPFLOWS = {}
    (found,) = [message for message in check_caches() if message.id == "stepflows.W003"]
    assert re.search(problem, found.msg)
    assert remedy in str(found.hint)
