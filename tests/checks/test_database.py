"""The database that runs are in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stepflows import workflow
from stepflows.checks import check_database
from tests.checks.bodies import ids, says


@pytest.fixture
def database(monkeypatch):
    """Replaces what Django says of its connection."""

    def replace(vendor, **options):
        made = SimpleNamespace(vendor=vendor, settings_dict={"OPTIONS": options})
        monkeypatch.setattr("stepflows.checks.database.connections", {"default": made})

    return replace


@pytest.fixture
def _workflow():
    @workflow("shop", cache={})
    def shop(step, deps): ...


@pytest.mark.usefixtures("_workflow")
@pytest.mark.parametrize("options", [{}, {"timeout": 20}, {"transaction_mode": "DEFERRED"}])
def test_sqlite_as_it_comes_is_a_warning(database, options):
    """With what to do where everything is on one machine."""
    database("sqlite", **options)
    (found,) = check_database()
    assert found.id == "stepflows.W007"
    assert says(found, "'default'.*database is locked.*PostgreSQL.*IMMEDIATE")


@pytest.mark.usefixtures("_workflow")
@pytest.mark.parametrize(
    ("vendor", "options"),
    [("sqlite", {"transaction_mode": "immediate"}), ("sqlite", {"transaction_mode": "EXCLUSIVE"}), ("postgresql", {})],
)
def test_a_database_that_takes_turns_is_left_alone(database, vendor, options):
    """SQLite too, once it is told to."""
    database(vendor, **options)
    assert check_database() == []


def test_a_project_without_workflows_is_left_alone(database):
    """It has no runs."""
    database("sqlite")
    assert ids(check_database()) == []
