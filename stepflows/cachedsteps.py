"""Which entries of which caches: what the admin and the commands list, count and clear."""

from __future__ import annotations

import base64
import binascii
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from functools import cached_property
from itertools import groupby
from typing import Final, NamedTuple

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.utils.translation import gettext as _

from stepflows import conf
from stepflows.caches import StepCache, backend_for
from stepflows.caches.backend import Survey
from stepflows.caches.codec import Head, Truncated, current_codec
from stepflows.caches.names import Name, is_version_of, namespace_of, scope_of
from stepflows.engine.cache import Damaged
from stepflows.registry import registry

__all__ = [
    "Listing",
    "Place",
    "Selection",
    "aliases_in_use",
    "heads",
    "legible",
    "lost_indexes",
    "moment_of",
    "printable",
    "rebuild",
    "remove",
    "workflow_of",
]

# What most heads fit in; those of long keys are read again.
_HEAD_BYTES: Final = 512
# Removing more keeps the server's other clients waiting for longer, and is hardly quicker.
_REMOVED_AT_ONCE: Final = 250


class Place(NamedTuple):
    """Where one entry lies: an alias of ``CACHES`` and a name in it."""

    alias: str
    name: Name

    @property
    def id(self) -> str:
        """The place as text that may stand in a URL."""
        text = "\0".join((self.alias, *self.name)).encode("utf-8", "surrogatepass")
        return base64.urlsafe_b64encode(text).decode("ascii").rstrip("=")

    @classmethod
    def of(cls, text: str) -> Place | None:
        """The place whose :attr:`id` this is, or ``None`` when it is none."""
        try:
            decoded = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            alias, scope, key = decoded.decode("utf-8", "surrogatepass").split("\0", 2)
        except (binascii.Error, ValueError):
            return None
        # Other scopes lead to what is no entry, such as a lease.
        return cls(alias, Name(scope, key)) if scope_of(*namespace_of(scope)) == scope else None


@dataclass(frozen=True)
class Listing:
    """A page of a selection, and what is told around it."""

    #: How many entries each workflow has in these aliases, sorted by name.
    sizes: dict[str, int]
    #: How many entries were selected; the places of some of them, and what the first bytes of each say.
    count: int
    places: list[Place]
    heads: list[Head | Damaged | None]
    #: The aliases that have lost their list of what they hold, so that some of it is missing here.
    lost: list[str]

    @property
    def total(self) -> int:
        """How many entries there are, selected or not."""
        return sum(self.sizes.values())


@dataclass(frozen=True)
class Selection:
    """Entries of these aliases: of one workflow (in all its versions) or of all, whose key has the prefix.

    Aliases must be in ``CACHES``. Whatever asks a cache raises :exc:`~stepflows.errors.CacheUnavailable` when it cannot
    be reached, :exc:`~stepflows.errors.CannotList` when it does not know what it holds, and
    :exc:`~stepflows.errors.InvalidUse` when there is no such alias. A scope's name is looked up once.
    """

    aliases: tuple[str, ...]
    workflow: str | None = None
    prefix: str = ""

    @cached_property
    def count(self) -> int:
        """How many entries there were when this was first asked."""
        return sum(backend_for(alias).count(scope, self.prefix) for alias, scope in self._parts)

    def listing(self, start: int, limit: int) -> Listing:
        """A page of that many entries, after leaving out the first ``start``. It asks each server twice at the most."""
        sizes: Counter[str] = Counter()
        found: list[tuple[Place, bytes | None]] = []
        count, lost = 0, []
        for alias in self.aliases:
            survey = self._survey(alias, max(0, start - count), limit - len(found))
            found += zip((Place(alias, name) for name in survey.names), survey.heads, strict=True)
            count += survey.matching
            lost += [] if survey.is_complete else [alias]
            for scope, size in survey.sizes.items():
                sizes[workflow_of(scope)] += size
        places = [place for place, _ in found]
        heads = _whole(places, _read(data for _, data in found))
        return Listing(dict(sorted(sizes.items())), count, places, heads, lost)

    @property
    def workflows(self) -> list[str]:
        """The workflows that have entries in these aliases, sorted."""
        return sorted({workflow_of(scope) for alias in self.aliases for scope in backend_for(alias).scopes()})

    def page(self, start: int, stop: int | None) -> list[Place]:
        """The entries from one position to another, by alias, scope and key."""
        places: list[Place] = []
        for alias, scope in self._parts:
            backend, limit = backend_for(alias), None if stop is None else stop - start - len(places)
            if limit == 0:
                break
            if start and len(self._parts) > 1 and (size := backend.count(scope, self.prefix)) <= start:
                start, stop = start - size, None if stop is None else stop - size
                continue
            places += (Place(alias, name) for name in backend.names(scope, self.prefix, start, limit))
            start, stop = 0, None if stop is None else stop - start
        return places

    def walk(self) -> Iterator[list[Place]]:
        """All of them in batches. They may be removed on the way."""
        for alias, scope in self._parts:
            for names in backend_for(alias).walk(scope, self.prefix, _REMOVED_AT_ONCE):
                yield [Place(alias, name) for name in names]

    def __str__(self) -> str:
        parts = [
            _("all workflows") if self.workflow is None else _("workflow “%(name)s”") % {"name": self.workflow},
            _("keys that begin with “%(prefix)s”") % {"prefix": self.prefix} if self.prefix else "",
            *(_("cache “%(alias)s”") % {"alias": alias} for alias in self.aliases),
        ]
        return ", ".join(filter(None, parts))

    def _survey(self, alias: str, start: int, limit: int) -> Survey:
        backend = backend_for(alias)
        plain = None if self.workflow is None else scope_of(self.workflow)
        survey = backend.survey(plain, self.prefix, start, limit, _HEAD_BYTES)
        if plain is None or all(
            (workflow_of(each) == self.workflow) == is_version_of(each, plain) for each in survey.sizes
        ):
            return survey
        # What can be shown of some workflow's name is this name, and so it goes with it.
        alone = replace(self, aliases=(alias,))
        names = [place.name for place in alone.page(start, start + limit)]
        return survey._replace(matching=alone.count, names=names, heads=backend.heads(names, _HEAD_BYTES))

    @cached_property
    def _parts(self) -> list[tuple[str, str | None]]:
        """What to ask: pairs of an alias and a scope, ``None`` being all scopes."""
        if self.workflow is None:
            return [(alias, None) for alias in self.aliases]
        return [
            (alias, scope)
            for alias in self.aliases
            for scope in backend_for(alias).scopes()
            if workflow_of(scope) == self.workflow
        ]


def aliases_in_use() -> tuple[str, ...]:
    """The alias of ``STEPFLOWS["CACHE"]``, then those of the registered workflows.

    One that is not in ``CACHES`` is for ``manage.py check`` to report, and keeps nobody from the others.
    """
    used = [StepCache(), *(workflow.cache for workflow in registry.all())]
    aliases = [cache.alias or conf.settings().CACHE for cache in used if isinstance(cache, StepCache)]
    named = dict.fromkeys(alias for alias in aliases if not isinstance(alias, BaseCache))
    return tuple(alias for alias in named if alias in caches) or tuple(named)[:1]


def lost_indexes(aliases: Iterable[str]) -> list[str]:
    """Those aliases that have lost their list of what they hold, so that some of it is not listed."""
    return [alias for alias in aliases if backend_for(alias).can_list and not backend_for(alias).is_complete()]


def rebuild(alias: str) -> int:
    """Look through the whole cache and list anew what is there; how many entries that are."""
    return backend_for(alias).rebuild()


def remove(places: Iterable[Place]) -> int:
    """Remove the entries and return how many there were."""
    return sum(
        backend_for(alias).remove([place.name for place in group])
        for alias, group in groupby(places, key=lambda place: place.alias)
    )


def heads(places: Sequence[Place]) -> list[Head | Damaged | None]:
    """What the first bytes of each entry say, in the order asked; ``None`` for one that is gone or expired."""
    return _whole(places, _read(_heads(places, _HEAD_BYTES)))


def _heads(places: Sequence[Place], size: int) -> Iterator[bytes | None]:
    for alias, group in groupby(places, key=lambda place: place.alias):
        yield from backend_for(alias).heads([place.name for place in group], size)


def _read(heads: Iterable[bytes | None]) -> list[Head | Damaged | None]:
    codec, now = current_codec(), time.time()
    found = [None if data is None else codec.head(data) for data in heads]
    return [None if isinstance(head, Head) and head.stamp.expired(now) else head for head in found]


def _whole(places: Sequence[Place], found: list[Head | Damaged | None]) -> list[Head | Damaged | None]:
    """The same, once those that are longer than others were read again."""
    long = {position: head.size for position, head in enumerate(found) if isinstance(head, Truncated)}
    if not long:
        return found
    again = _read(_heads([places[position] for position in long], max(long.values())))
    whole = dict(zip(long, again, strict=True))
    return [whole.get(position, head) for position, head in enumerate(found)]


def workflow_of(scope: str) -> str:
    """The name of the workflow (or namespace) of a scope, as it can be shown."""
    return printable(namespace_of(scope)[0])


def printable(text: str) -> str:
    """The text without lone surrogates and zeros, which not every page and database takes."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def legible(text: str, kept: str = "") -> str:
    """The text with escapes for what a terminal would obey instead of showing it, such as a new line, unless kept."""
    return "".join(sign if sign.isprintable() or sign in kept else ascii(sign)[1:-1] for sign in text)


def moment_of(seconds: float | None) -> datetime | None:
    """The time of a stamp, or ``None`` for what is none that any time zone could show."""
    try:
        moment = None if seconds is None else datetime.fromtimestamp(seconds, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment if moment and MINYEAR < moment.year < MAXYEAR else None
