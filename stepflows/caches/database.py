"""Django's database cache, read from its table."""

# ruff: noqa: SLF001 - Django's cache has no public way to its table

from __future__ import annotations

import base64
import binascii
import pickle
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, cast

from django.db import IntegrityError, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.timezone import now

from stepflows.caches.backend import reaching
from stepflows.caches.django import refused
from stepflows.caches.enumerable import HEAD_BYTES, EnumerableBackend, made_prefix
from stepflows.caches.names import Name, backend_key
from stepflows.caches.pickled import plain_start

__all__ = ["DatabaseBackend"]

# What every database takes in one statement.
_PARAMETERS: Final = 500


class DatabaseBackend(EnumerableBackend):
    """Taking, renewing and ending a lease is one conditional statement each, so they hold between machines.

    Everything goes where the router writes: a replica that lags would let a completed step run again.

    In an open transaction of that connection nobody else could see a lease, so there are none: the right to run is
    granted without. Entries are written, and stand or fall with the transaction.
    """

    @reaching("delete")
    def remove(self, names: Sequence[Name]) -> int:
        cache: Any = self._source()
        places = [cache.make_and_validate_key(backend_key(name)) for name in names]
        return sum(
            _changed(cache, f"DELETE FROM {{table}} WHERE {{key}} IN ({_marks(batch)})", batch)  # noqa: S608 - no value
            for batch in _batches(places)
        )

    def _raw(self, cache: Any, keys: list[str]) -> dict[str, bytes]:
        places = {cache.make_and_validate_key(key): key for key in keys}
        found = {}
        for batch in _batches(list(places)):
            for place, data in _select(cache, "{value}", f"{{key}} IN ({_marks(batch)})", batch):
                found[places[place]] = data
        return found

    def _contents(self, cache: Any) -> Iterator[tuple[str, bytes]]:
        connection = _connection(cache)
        # Base64 makes four characters of three bytes.
        start = f"SUBSTR({{value}}, 1, {(HEAD_BYTES + 66) // 3 * 4})"
        like = "{key} " + cast("Any", connection).operators["startswith"]
        prefix = connection.ops.prep_for_like_query(made_prefix(cache)) + "%"
        for place, data in _select(cache, start, like, [prefix]):
            yield place, plain_start(data) or b""

    def _set(self, cache: Any, key: str, data: bytes, timeout: float | None) -> None:
        # What cache.set() does, which would not tell that the database refused.
        if not cache._base_set("set", cache.make_and_validate_key(key), data, timeout):
            raise refused(self.title)

    def _guards(self, cache: Any) -> bool:
        # What a test case puts around each test does not count.
        return all(cast("Any", block)._from_testcase for block in _connection(cache).atomic_blocks)

    def _add_lease(self, cache: Any, lease: str, own: bytes, timeout: float) -> bool:
        connection = _connection(cache)
        row = [_encoded(cache, own), _moment(connection, timeout), cache.make_and_validate_key(lease)]
        # The cache's own add() lets two callers have one expired row.
        expired = "UPDATE {table} SET {value} = %s, {expires} = %s WHERE {key} = %s AND {expires} < %s"
        if _changed(cache, expired, [*row, _moment(connection)]):
            return True
        try:
            with transaction.atomic(using=connection.alias):
                _changed(cache, "INSERT INTO {table} ({value}, {expires}, {key}) VALUES (%s, %s, %s)", row)
        except IntegrityError:
            return False
        return True

    def _extend(self, cache: Any, lease: str, own: bytes, timeout: float) -> bool:
        connection = _connection(cache)
        row = [_moment(connection, timeout), cache.make_and_validate_key(lease), _encoded(cache, own)]
        sql = "UPDATE {table} SET {expires} = %s WHERE {key} = %s AND {text} = %s"
        return bool(_changed(cache, sql, row))

    def _end(self, cache: Any, lease: str, own: bytes) -> None:
        row = [cache.make_and_validate_key(lease), _encoded(cache, own)]
        _changed(cache, "DELETE FROM {table} WHERE {key} = %s AND {text} = %s", row)


def _connection(cache: Any) -> BaseDatabaseWrapper:
    return connections[router.db_for_write(cache.cache_model_class)]


def _select(cache: Any, column: str, where: str, parameters: list[str]) -> list[tuple[str, bytes]]:
    connection = _connection(cache)
    # The cache's own add() takes a row for expired from the next second on; until then it is in the way.
    sql = f"SELECT {{key}}, {column} FROM {{table}} WHERE {where} AND {{expires}} >= %s"  # noqa: S608 - no value
    with connection.cursor() as cursor:
        cursor.execute(_named(connection, cache, sql), [*parameters, _moment(connection)])
        return [(place, _decoded(connection, value)) for place, value in cursor.fetchall()]


def _changed(cache: Any, sql: str, parameters: list[Any]) -> int:
    """How many rows the statement has changed."""
    connection = _connection(cache)
    with connection.cursor() as cursor:
        cursor.execute(_named(connection, cache, sql), parameters)
        return int(cursor.rowcount)


def _named(connection: BaseDatabaseWrapper, cache: Any, sql: str) -> str:
    quoted = connection.ops.quote_name
    # Oracle compares no long text.
    text = connection.ops.lookup_cast("exact", "TextField") % quoted("value")
    columns = {"key": quoted("cache_key"), "value": quoted("value"), "expires": quoted("expires"), "text": text}
    return sql.format(table=quoted(cache._table), **columns)


def _moment(connection: BaseDatabaseWrapper, seconds: float = 0) -> Any:
    """Now, or later, to the second as the cache itself has it."""
    return connection.ops.adapt_datetimefield_value((now() + timedelta(seconds=seconds)).replace(microsecond=0))


def _marks(parameters: list[str]) -> str:
    return ", ".join(["%s"] * len(parameters))


def _encoded(cache: Any, data: bytes) -> str:
    """The text that the cache keeps for these bytes."""
    return base64.b64encode(pickle.dumps(data, cache.pickle_protocol)).decode("ascii")


def _decoded(connection: BaseDatabaseWrapper, value: Any) -> bytes:
    try:
        return base64.b64decode(connection.ops.process_clob(value), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _batches(items: list[str]) -> Iterable[list[str]]:
    return (items[start : start + _PARAMETERS] for start in range(0, len(items), _PARAMETERS))
