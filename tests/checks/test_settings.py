"""The STEPFLOWS dict, and the command that reports all of it."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.checks import registry
from django.core.management import call_command
from django.core.management.base import SystemCheckError

import stepflows.checks
from stepflows.checks import check_caches, check_eviction, check_settings
from tests.checks.bodies import ids


@pytest.mark.parametrize("given", [{"CASHE": "default"}, {"LEASE": -1}, "default"])
def test_a_wrong_setting_is_an_error(settings, given):
    """With its name; the caches are looked at once the settings are right."""
    settings.STEPFLOWS = given
    assert ids(check_settings()) == ["stepflows.E001"]
    assert check_caches() == check_eviction() == []


def test_right_settings_are_left_alone(settings):
    """As are none."""
    for given in ({}, {"CACHE": "default", "LEASE": 10}):
        settings.STEPFLOWS = given
        assert check_settings() == []


@pytest.mark.django_db
def test_the_command_reports_it(settings):
    """The checks are registered."""
    settings.STEPFLOWS = {"CASHE": "default", "CACHE": "default"}
    with pytest.raises(SystemCheckError, match=r"stepflows\.E001.*Did you mean 'CACHE'"):
        call_command("check", stderr=StringIO())


def test_every_check_is_registered_under_a_tag_of_its_own():
    """Those that ask servers, or are about production, for --deploy alone."""
    deploy = {"check_database", "check_eager", "check_eviction"}
    for name in stepflows.checks.__all__:
        check = getattr(stepflows.checks, name)
        assert "stepflows" in check.tags
        assert (check in registry.registry.deployment_checks) == (name in deploy)
        assert (check in registry.registry.registered_checks) == (name not in deploy)
