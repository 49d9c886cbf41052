"""Settings of the tests.

Each test process (each worker of pytest-xdist) has a folder and a Valkey server of its own, chosen here and handed to
the processes it starts through the environment, so that a Celery worker started by a test sees the same database and
the same caches. Nothing is created here: ``tests/conftest.py`` makes the folder and starts the server when a test asks.

``REDIS_URL`` names another server to use instead; each test process then takes two of its databases.

The database is a file of SQLite. ``TEST_DATABASE=postgresql`` takes a PostgreSQL server of each test process's own in
its place, and ``TEST_DATABASE=postgresql://user@host:port/name`` that very database, which tests make anew.
"""

from __future__ import annotations

import json
import os
import random
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
REDIS_IS_OURS = "REDIS_URL" not in os.environ
TEST_DATABASE = os.environ.get("TEST_DATABASE", "sqlite")
POSTGRES_IS_OURS = TEST_DATABASE == "postgresql"


def _chosen(what: str, choose: Callable[[], str]) -> str:
    """What this test process has chosen once, for itself and for the processes that it starts."""
    name = f"STEPFLOWS_TEST_{what}_{WORKER}"
    if name not in os.environ:
        os.environ[name] = choose()
    return os.environ[name]


def _folder() -> Path:
    return Path(_chosen("FOLDER", lambda: str(Path(tempfile.gettempdir()) / f"stepflows-{uuid4().hex[:12]}")))


def _redis_server() -> str:
    """The server's address without a database number."""
    return _chosen("REDIS", lambda: os.environ.get("REDIS_URL") or f"redis://127.0.0.1:{_free_port()}/0")


def _free_port() -> int:
    """A port below those that the system hands out to clients, so that it is still free when the server starts."""
    ports = random.SystemRandom().sample(range(20_000, 30_000), 100)
    return next(port for port in ports if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _redis_url(offset: int) -> str:
    url = urlsplit(_redis_server())
    worker = int("".join(filter(str.isdigit, WORKER)) or 0)
    database = int(url.path.strip("/") or 0) + 2 * worker + offset
    return url._replace(path=f"/{database}").geturl()


def _database() -> dict[str, Any]:
    if TEST_DATABASE == "sqlite":
        return _sqlite(str(FOLDER / "tests.sqlite3"))
    return database_settings(_postgres_url() if POSTGRES_IS_OURS else TEST_DATABASE)


def _sqlite(file: str) -> dict[str, Any]:
    """A file, so that threads and worker processes see the same tables."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": file,
        "TEST": {"NAME": file},
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }


def _postgres_url() -> str:
    return _chosen("POSTGRES", lambda: f"postgresql://postgres@127.0.0.1:{_free_port()}/stepflows")


def database_settings(address: str) -> dict[str, Any]:
    """The entry of ``DATABASES`` for the PostgreSQL database of that address, in the tests and in their processes."""
    url = urlsplit(address)
    name = url.path.strip("/")
    if url.scheme != "postgresql" or not name:
        raise ValueError(
            f"TEST_DATABASE is {address!r}, which names no database: "
            f"set it to 'sqlite', 'postgresql' or 'postgresql://user@host:port/name'."
        )
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": url.hostname or "",
        "PORT": str(url.port or ""),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "NAME": name,
        "TEST": {"NAME": name},
    }


FOLDER = _folder()
CACHE_URL = _redis_url(0)
BROKER_URL = _redis_url(1)
MEMCACHED_PORT = int(_chosen("MEMCACHED", lambda: str(_free_port())))

SECRET_KEY = "tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "stepflows",
    "tests.flows",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": _database()}

_PLENTY = {"MAX_ENTRIES": 1_000_000}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "default", "OPTIONS": _PLENTY},
    "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "locmem", "OPTIONS": _PLENTY},
    "database": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "stepflows_cache",
        "OPTIONS": _PLENTY,
    },
    "file": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": str(FOLDER / "cache"),
        "OPTIONS": _PLENTY,
    },
    "redis": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": CACHE_URL},
    "django_redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": CACHE_URL,
        "KEY_PREFIX": "dr",
    },
    "memcached": {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": f"127.0.0.1:{MEMCACHED_PORT}",
    },
}

CELERY_BROKER_URL = BROKER_URL
#: For worker processes that are to have a quicker heart.
STEPFLOWS = json.loads(os.environ.get("TEST_STEPFLOWS", "{}"))
