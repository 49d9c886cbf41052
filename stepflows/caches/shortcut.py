"""A GET straight on a connection of redis-py's pool.

The layers that redis-py has around each command cost as much as the server's whole answer, and a hit is one GET.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from types import FunctionType
from typing import Any

import redis
from redis import BlockingConnectionPool, ConnectionPool, Redis, asyncio, client
from redis.exceptions import ResponseError

__all__ = ["ashortcut", "shortcut"]


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
        and _is_own(Redis.execute_command, client.__file__)
        and not (retry and retry.get_retries())
        and pool.cache is None
    )
    return partial(_get, pool) if bare else None


def ashortcut(pool: Any) -> Callable[[str], Awaitable[Any]] | None:
    """The same for a pool of connections for event loops; there, retries are the caller's affair."""
    bare = redis.VERSION >= (6,) and _is_own(asyncio.Redis.execute_command, asyncio.client.__file__)
    return partial(_aget, pool) if bare else None


def _is_own(method: Any, file: str) -> bool:
    """Whether it is redis-py's, and not what somebody has put in its place."""
    return isinstance(method, FunctionType) and method.__code__.co_filename == file


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


async def _aget(pool: Any, key: str) -> Any:
    connection = await pool.get_connection()
    try:
        await connection.send_command("GET", key)
        return await connection.read_response()
    except ResponseError:
        raise
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)
