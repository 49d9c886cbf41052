"""A cache with steps, people with permissions, and the pages of the admin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django.fixtures import Settings

from stepflows.registry import registry
from tests.conftest import prepared


@pytest.fixture(params=["locmem", "django_redis"])
def alias(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only cache with steps, empty: one in this process, one on a server."""
    settings.STEPFLOWS = {"CACHE": request.param}
    monkeypatch.setattr(registry, "_workflows", {})
    return prepared(request.param, request)


@pytest.fixture
def locmem(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it does not matter which cache it is."""
    settings.STEPFLOWS = {"CACHE": "locmem"}
    monkeypatch.setattr(registry, "_workflows", {})
    return "locmem"


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """Somebody on the staff with these permissions, logged in."""

    def make(*codenames: str, **more: Any) -> Client:
        user = User.objects.create_user("-".join(codenames) or "nobody", **{"is_staff": True, **more})
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        assert user.user_permissions.count() == len(codenames)
        client = Client()
        client.force_login(user)
        return client

    return make


@pytest.fixture
def boss(staff: Callable[..., Client]) -> Client:
    """Somebody who may do everything, logged in."""
    return staff(is_superuser=True)
