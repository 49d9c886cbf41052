"""What manage.py check reports, and what it leaves alone."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from django.core.cache.backends.locmem import LocMemCache
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from stepflows import workflow
from stepflows.checks import check_caches, check_settings
from stepflows.registry import registry

SHARED = {
    "BACKEND": "django_redis.cache.RedisCache",
    "LOCATION": "redis://127.0.0.1:1/0",
}


@pytest.fixture(autouse=True)
def _no_workflows(monkeypatch):
    """Only those that a test registers itself."""
    monkeypatch.setattr(registry, "_workflows", {})


def ids(messages):
    return [message.id for message in messages]


def test_good_settings_are_left_alone(settings):
    """A shared cache that keeps everything, and mappings, which are nobody's settings."""
    settings.CACHES = {"default": SHARED}
    settings.STEPFLOWS = {"CACHE": "default"}

    @workflow("kept", cache={})
    def kept(step, deps): ...

    assert check_settings() == []
    assert check_caches() == []


@pytest.mark.parametrize("given", [{"CASHE": "default"}, {"LEASE": -1}, "default"])
def test_a_wrong_setting_is_an_error(settings, given):
    """With its name; the caches are looked at once the settings are right."""
    settings.STEPFLOWS = given
    assert ids(check_settings()) == ["stepflows.E001"]
    assert check_caches() == []


@pytest.mark.django_db
def test_the_command_reports_it(settings):
    """The checks are registered."""
    settings.STEPFLOWS = {"CASHE": "default", "CACHE": "default"}
    with pytest.raises(SystemCheckError, match=r"stepflows\.E001.*Did you mean 'CACHE'"):
        call_command("check", stderr=StringIO())


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
        ("tests.test_checks.Unknown", "Unknown.*own serializer.*add", "Django ships"),
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
