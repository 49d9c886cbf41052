"""A GET straight on a connection of redis-py's pool.

The layers that redis-py has around each command cost as much as the server's whole answer, and a hit is one GET.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import redis
from redis import BlockingConnectionPool, ConnectionPool, Redis, client
from redis.exceptions import ResponseError

__all__ = ["shortcut"]


def shortcut(given: Any) -> Callable[[str], Any] | None:
    """How to get a key's bytes past those layers, or ``None`` if somebody would miss them.

    That is a tracer that has wrapped them, the retries that a project has configured, and redis-py's own cache.
    """
    pool = given.connection_pool
    retry = pool.connection_kwargs.get("retry")
    bare = (
        redis.VERSION >= (6,)
        and type(given) is Redis
        and type(pool) in (ConnectionPool, BlockingConnectionPool)
        and isinstance(Redis.execute_command, FunctionType)
        and Redis.execute_command.__code__.co_filename == client.__file__
        and not (retry and retry.get_retries())
        and pool.cache is None
    )
    return partial(_get, pool) if bare else None


def _get(pool: Any, key: str) -> Any:
    connection = pool.get_connection()
    try:
        connection.send_command("GET", key)
        return connection.read_response()
    except ResponseError:
        raise
    except BaseException:
        # The reply may still be under way.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)
