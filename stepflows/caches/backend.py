"""What :class:`~stepflows.caches.stepcache.StepCache` asks of a cache server: bytes under names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import wraps
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeVar, cast

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError

from stepflows.caches.names import Name
from stepflows.engine.cache import Busy
from stepflows.errors import CacheUnavailable, CannotList, StepflowsError

__all__ = ["BATCH", "PASSING", "Answer", "Backend", "Held", "Hold", "Survey", "Write"]
__all__ += ["cannot_list", "reaching", "unavailable"]

#: How many entries are listed or removed in one go.
BATCH: Final = 1000

#: Not the cache's doing, so never turned into CacheUnavailable: our own errors, and what may strike anywhere.
PASSING: Final = (StepflowsError, SoftTimeLimitExceeded, RecursionError, MemoryError)


class Hold(NamedTuple):
    """A lease as a backend knows it."""

    name: Name
    token: str
    #: Its key as the cache made it; empty where any thread makes the same.
    place: str = ""


class Held(NamedTuple):
    """A claim was granted, and its lease lies where only the thread that asked could tell."""

    place: str


class Write(NamedTuple):
    """Bytes to write under a name."""

    name: Name
    data: bytes
    #: A positive number of seconds, or ``None`` for ever.
    ttl: float | None = None
    #: Whether they take the place of what is there.
    replace: bool = False
    #: The lease under which they were made, if any.
    token: str = ""
    #: Whether nothing is to be written when somebody else has the lease by now.
    yields: bool = False


class Survey(NamedTuple):
    """All that a page of a listing shows, as it was at one moment."""

    #: How many entries each scope has, sorted by scope.
    sizes: dict[str, int]
    #: How many entries were asked for; of some of them the names, and for each the first bytes.
    matching: int
    names: list[Name]
    heads: list[bytes | None]
    #: See :meth:`Backend.is_complete`.
    is_complete: bool


class Answer(Enum):
    """What became of a claim or a write, where no bytes are the answer."""

    GRANTED = "granted"
    WRITTEN = "written"
    #: Granted, but nobody else can see that: there is no lease to renew or to end.
    UNGUARDED = "unguarded"
    #: Written, but the lease had ended or was somebody else's.
    LATE = "late"
    LOST = "lost"


class Backend(Protocol):
    """One alias of ``CACHES``. Names are exact and listed sorted by scope, then by key.

    Every method raises :exc:`~stepflows.errors.CacheUnavailable` when the server cannot be reached or refuses. Those
    that list raise :exc:`~stepflows.errors.CannotList` unless ``can_list``. ``scope=None`` means all scopes. Answers
    come in the order asked. Those with an ``a`` in front are for event loops, which they never block.
    """

    #: The cache as messages name it, such as ``cache alias 'default'``.
    title: str
    #: Whether the backend can say which entries it holds.
    can_list: ClassVar[bool]

    def read(self, name: Name) -> bytes | None:
        """The bytes of the entry. Foreign things come back as bytes that are no entry."""

    def read_many(self, names: Sequence[Name]) -> list[bytes | None]:
        """The bytes of each entry."""

    def claim(
        self, names: Sequence[Name], token: str, seconds: float, *, force: bool = False
    ) -> list[bytes | Answer | Held | Busy]:
        """For each name the bytes that are there; or ``GRANTED``, the lease for that long; or else who has it.

        With ``force``, what is there does not matter. Asked again with the same token, it answers the same.
        """

    def write(self, writes: Sequence[Write]) -> list[bytes | Answer]:
        """For each the bytes that were there first, unless it replaces them; or ``WRITTEN``, ``LATE`` or ``LOST``.

        A lease that is still this token's ends with the write; it stays where bytes are the answer.
        """

    def renew(self, holds: Sequence[Hold], seconds: float) -> list[bool]:
        """Make leases last that long from now; whether each was this token's or nobody's, and so is held again."""

    def release(self, holds: Sequence[Hold]) -> None:
        """End those leases that are still this token's."""

    def remove(self, names: Sequence[Name]) -> int:
        """Remove the entries and return how many there were."""

    def names(self, scope: str | None = None, prefix: str = "", start: int = 0, limit: int | None = None) -> list[Name]:
        """Names of entries whose key has the prefix: ``limit`` of them, after leaving out the first ``start``."""

    def walk(self, scope: str | None = None, prefix: str = "", size: int = BATCH) -> Iterator[list[Name]]:
        """The same names in batches. Entries may be removed, and others stored, on the way."""

    def count(self, scope: str | None = None, prefix: str = "") -> int:
        """How many entries there are. One that the server evicted may count until it is listed."""

    def scopes(self) -> list[str]:
        """Every scope that has entries, sorted."""

    def survey(
        self, plain: str | None = None, prefix: str = "", start: int = 0, limit: int = BATCH, size: int = 512
    ) -> Survey:
        """What there is in every scope, and one page: what :meth:`names` and :meth:`heads` say, at less cost.

        ``plain`` is a scope without a version and stands for it in all its versions; ``None`` means all scopes.
        """

    def heads(self, names: Sequence[Name], size: int = 512) -> list[bytes | None]:
        """The first bytes of each entry, for listings that need no value."""

    def is_complete(self) -> bool:
        """Whether what is listed is all there is, and no list of it was lost."""

    def rebuild(self) -> int:
        """Look through everything there is and list it anew; how many entries that are."""

    async def aread(self, name: Name) -> bytes | None: ...

    async def aread_many(self, names: Sequence[Name]) -> list[bytes | None]: ...

    async def aremove(self, names: Sequence[Name]) -> int: ...

    async def aclaim(
        self, names: Sequence[Name], token: str, seconds: float, *, force: bool = False
    ) -> list[bytes | Answer | Held | Busy]: ...

    async def awrite(self, writes: Sequence[Write]) -> list[bytes | Answer]: ...

    async def arelease(self, holds: Sequence[Hold]) -> None: ...


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
