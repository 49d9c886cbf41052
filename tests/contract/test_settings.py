"""One dict, all keys optional."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.core.exceptions import ImproperlyConfigured

from stepflows import NotCacheable, create_workflow
from stepflows.conf import Settings, problems
from stepflows.conf import settings as current
from tests.contract.test_steps import stepping


def test_without_the_setting_the_defaults_hold(settings):
    """Each of them, and nothing has to be set."""
    if hasattr(settings, "STEPFLOWS"):
        del settings.STEPFLOWS
    assert current() == Settings()
    assert current().CACHE == "default"
    assert timedelta(days=30) == current().RUN_RETENTION


def test_settings_are_read_again_when_a_test_changes_them(settings):
    """As override_settings users expect."""
    settings.STEPFLOWS = {"LEASE": 5}
    assert current().LEASE == 5
    settings.STEPFLOWS = {}
    assert current().LEASE == 30


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"CASHE": "x"}, r"no setting 'CASHE'.*'CACHE'"),
        ({"WHOLLY_UNKNOWN": 1}, "Known are: CACHE"),
        ({"CACHE": 3}, "alias"),
        ({"CACHE": ""}, "alias"),
        ({"TTL": -1}, "TTL"),
        ({"TTL": timedelta(0)}, "TTL"),
        ({"TTL": True}, "TTL"),
        ({"CACHE_ERRORS": "no.such.Error"}, "CACHE_ERRORS"),
        ({"CACHE_ERRORS": [int]}, "CACHE_ERRORS"),
        ({"CACHE_ERRORS": 5}, "CACHE_ERRORS"),
        ({"LEASE": 0}, "LEASE"),
        ({"LEASE": "30"}, "LEASE"),
        ({"ON_CACHE_DOWN": "hope"}, "'fail' or 'run'"),
        ({"MAX_VALUE_BYTES": 1.5}, "bytes"),
        ({"SIGN": "yes"}, "True or False"),
        ({"HEARTBEAT": float("inf")}, "HEARTBEAT"),
        ({"MAX_ATTEMPTS": 0}, "MAX_ATTEMPTS"),
        ({"MAX_WORKERS": True}, "MAX_WORKERS"),
        ({"RUN_RETENTION": "long"}, "RUN_RETENTION"),
    ],
    ids=repr,
)
def test_a_wrong_setting_is_named(settings, given, message):
    """Once read, with what it must be; the check reports it as well."""
    settings.STEPFLOWS = given
    with pytest.raises(ImproperlyConfigured, match=message):
        current()
    assert len(list(problems())) == 1


def test_the_setting_must_be_a_dict(settings):
    """And says so."""
    settings.STEPFLOWS = ["CACHE"]
    with pytest.raises(ImproperlyConfigured, match="dict"):
        current()


def test_good_settings_have_no_problems(settings):
    """Every kind of value that is documented."""
    settings.STEPFLOWS = {
        "CACHE": "locmem",
        "TTL": 60,
        "CACHE_ERRORS": ["builtins.ValueError", KeyError],
        "LEASE": 5.5,
        "ON_CACHE_DOWN": "run",
        "MAX_VALUE_BYTES": 100,
        "SIGN": True,
        "HEARTBEAT": 1,
        "MAX_ATTEMPTS": 1,
        "MAX_WORKERS": 2,
        "RUN_RETENTION": None,
    }
    assert list(problems()) == []
    assert (ValueError, KeyError) == current().CACHE_ERRORS


def test_ttl_is_the_default_of_every_step(settings):
    """Unless the workflow or the step says otherwise."""
    settings.STEPFLOWS = {"TTL": timedelta(minutes=15)}
    flow = create_workflow("shop", cache={})
    flow.run(lambda step, deps: (step("a", lambda: 1, key="a"), step("b", lambda: 1, key="b", ttl=None)))
    assert 890 < flow.cache["a"].stamp.expires_at - time.time() <= 900
    assert flow.cache["b"].stamp.expires_at is None
    assert create_workflow("shop", cache={}, ttl=None).run(lambda step, deps: step("a", lambda: 1, key="a")).ok


def test_max_value_bytes_bounds_what_is_stored(settings):
    """The error says both sizes and the setting."""
    settings.STEPFLOWS = {"MAX_VALUE_BYTES": 1000}
    flow = create_workflow("shop", cache="locmem")
    assert flow.run(lambda step, deps: step("a", lambda: "x" * 500, key="a")).ok
    error = flow.run(lambda step, deps: step("b", lambda: "x" * 2000, key="b")).error
    assert isinstance(error, NotCacheable)
    assert "MAX_VALUE_BYTES" in str(error)
    assert "1000" in str(error).replace(",", "").replace("_", "")


def test_max_workers_bounds_the_threads(settings):
    """For step.all and step.map in sync bodies."""
    import threading

    settings.STEPFLOWS = {"MAX_WORKERS": 2}
    idents = create_workflow("shop").run(
        lambda step, deps: step.map("a", range(50), lambda item: threading.get_ident())
    )
    assert len(set(idents.unwrap())) <= 2


def test_sign_makes_forged_entries_count_as_missing(settings, cache_alias):
    """An entry that was not written with Django's key is no entry."""
    flow = create_workflow("shop", cache=cache_alias)
    body = stepping("a", lambda: "real", key="a")
    from tests.voices import Sync

    Sync().run(flow, stepping("a", lambda: "forged", key="a"))
    settings.STEPFLOWS = {"SIGN": True}
    assert Sync().run(flow, body).unwrap() == "real"
    assert Sync().run(flow, stepping("a", lambda: "other", key="a")).unwrap() == "real"
    settings.SECRET_KEY = "another"
    assert flow.cache.get("a") is None
    settings.SECRET_KEY_FALLBACKS = ["tests"]
    assert flow.cache.get("a").unwrap() == "real"
