"""Django's database cache, read from its table."""

# ruff: noqa: SLF001 - Django's cache has no public way to its table

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

from django.db import connections, router
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
    @reaching("delete")
    def remove(self, names: Sequence[Name]) -> int:
        cache: Any = self._source()
        places = [cache.make_and_validate_key(backend_key(name)) for name in names]
        connection = connections[router.db_for_write(cache.cache_model_class)]
        return sum(_delete(connection, cache._table, batch) for batch in _batches(places))

    def _raw(self, cache: Any, keys: list[str]) -> dict[str, bytes]:
        places = {cache.make_and_validate_key(key): key for key in keys}
        connection = connections[router.db_for_read(cache.cache_model_class)]
        found = {}
        for batch in _batches(list(places)):
            marks = ", ".join(["%s"] * len(batch))
            for place, value in _select(connection, cache._table, "{value}", f"{{key}} IN ({marks})", batch):
                found[places[place]] = _decoded(connection, value)
        return found

    def _contents(self, cache: Any) -> Iterator[tuple[str, bytes]]:
        connection = connections[router.db_for_read(cache.cache_model_class)]
        # Base64 makes four characters of three bytes.
        start = f"SUBSTR({{value}}, 1, {(HEAD_BYTES + 66) // 3 * 4})"
        like = "{key} " + cast("Any", connection).operators["startswith"]
        prefix = connection.ops.prep_for_like_query(made_prefix(cache)) + "%"
        for place, value in _select(connection, cache._table, start, like, [prefix]):
            yield place, plain_start(_decoded(connection, value)) or b""

    def _set(self, cache: Any, key: str, data: bytes, timeout: int | None) -> None:
        # What cache.set() does, which would not tell that the database refused.
        if not cache._base_set("set", cache.make_and_validate_key(key), data, timeout):
            raise refused(self.title)


def _select(
    connection: BaseDatabaseWrapper, table: str, column: str, where: str, parameters: list[str]
) -> list[tuple[str, Any]]:
    quoted = _quoted(connection)
    sql = f"SELECT {{key}}, {column} FROM {quoted(table)} WHERE {where} AND {{expires}} > %s"  # noqa: S608 - quoted
    columns = {"key": quoted("cache_key"), "value": quoted("value"), "expires": quoted("expires")}
    # To the second and without a zone, as the cache itself does.
    moment = connection.ops.adapt_datetimefield_value(now().replace(microsecond=0, tzinfo=None))
    with connection.cursor() as cursor:
        cursor.execute(sql.format(**columns), [*parameters, moment])
        return list(cursor.fetchall())


def _delete(connection: BaseDatabaseWrapper, table: str, places: list[str]) -> int:
    quoted = _quoted(connection)
    marks = ", ".join(["%s"] * len(places))
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {quoted(table)} WHERE {quoted('cache_key')} IN ({marks})", places)  # noqa: S608 - quoted
        return int(cursor.rowcount)


def _quoted(connection: BaseDatabaseWrapper) -> Any:
    return connection.ops.quote_name


def _decoded(connection: BaseDatabaseWrapper, value: Any) -> bytes:
    try:
        return base64.b64decode(connection.ops.process_clob(value), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _batches(items: list[str]) -> Iterable[list[str]]:
    return (items[start : start + _PARAMETERS] for start in range(0, len(items), _PARAMETERS))
