"""What :class:`~stepflows.caches.stepcache.StepCache` asks of a cache server: bytes under names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, ClassVar, Final, Protocol, TypeVar, cast

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError

from stepflows.caches.names import Name
from stepflows.errors import CacheUnavailable, CannotList, StepflowsError

__all__ = ["BATCH", "PASSING", "Backend", "cannot_list", "reaching", "unavailable"]

#: How many entries are listed or removed in one go.
BATCH: Final = 1000

#: Not the cache's doing, so never turned into CacheUnavailable: our own errors, and Celery's limit, which may strike
#: anywhere.
PASSING: Final = (StepflowsError, SoftTimeLimitExceeded)


class Backend(Protocol):
    """One alias of ``CACHES``. Names are exact and listed sorted by scope, then by key.

    Every method raises :exc:`~stepflows.errors.CacheUnavailable` when the server cannot be reached or refuses. Those
    that list raise :exc:`~stepflows.errors.CannotList` unless ``can_list``. ``scope=None`` means all scopes.
    """

    #: The cache as messages name it, such as ``cache alias 'default'``.
    title: str
    #: Whether the backend can say which entries it holds.
    can_list: ClassVar[bool]

    def read(self, name: Name) -> bytes | None:
        """The bytes of the entry. Foreign things come back as bytes that are no entry."""

    def read_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """The bytes of each entry, in the order asked."""

    def write(self, name: Name, data: bytes, *, ttl: float | None, replace: bool) -> bytes | None:
        """Write and return ``None``; or, unless ``replace``, return the bytes that were there first.

        ``ttl`` is a positive number of seconds, or ``None`` for ever.
        """

    def remove(self, names: Sequence[Name]) -> int:
        """Remove the entries and return how many there were."""

    def contains(self, name: Name) -> bool:
        """Whether something is stored under the name."""

    def names(self, scope: str | None = None, prefix: str = "", start: int = 0, limit: int | None = None) -> list[Name]:
        """Names of entries whose key has the prefix: ``limit`` of them, after leaving out the first ``start``."""

    def walk(self, scope: str | None = None, prefix: str = "", size: int = BATCH) -> Iterator[list[Name]]:
        """The same names in batches. Entries may be removed, and others stored, on the way."""

    def count(self, scope: str | None = None, prefix: str = "") -> int:
        """How many entries there are. One that the server evicted may count until it is listed."""

    def scopes(self) -> list[str]:
        """Every scope that has entries, sorted."""

    def heads(self, names: Sequence[Name], size: int = 512) -> list[bytes | None]:
        """The first bytes of each entry, in the order asked, for listings that need no value."""


F = TypeVar("F", bound=Callable[..., Any])


def reaching(purpose: str) -> Callable[[F], F]:
    """Turn whatever the server's client raises into CacheUnavailable that says what could not be done.

    For methods of objects that have a ``title``.
    """

    def decorate(method: F) -> F:
        @wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except PASSING:
                raise
            except Exception as error:
                raise unavailable(self.title, purpose, error) from error

        return cast("F", call)

    return decorate


def unavailable(title: str, purpose: str, error: Exception) -> CacheUnavailable:
    """The error for a cache that failed to do what it was asked."""
    remedy = "See that its server runs, that it can be reached from here and that it takes writes."
    if isinstance(error, DatabaseError):
        remedy = "See that its table is there (manage.py createcachetable) and that the database can be reached."
    return CacheUnavailable(
        f"The {title} failed to {purpose}: {type(error).__name__}: {str(error).rstrip('.')}. {remedy}"
    )


def cannot_list(title: str, kind: str) -> CannotList:
    """The error for a backend that does not know what it holds."""
    return CannotList(
        f"The {title} is a {kind}, which cannot say which keys it holds. Deleting by key works. To list, count and "
        "clear steps, use a Redis cache (or Django's database, file or local-memory cache) for them."
    )
