"""What the change list pages through where other models have rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NoReturn, cast

from django.db import NotSupportedError
from django.db.models import QuerySet

from stepflows.cachedsteps import Listing, Place, Selection, heads, moment_of, printable, remove, workflow_of
from stepflows.caches.codec import Head
from stepflows.caches.names import namespace_of
from stepflows.engine.cache import Damaged
from stepflows.models import CachedStep

__all__ = ["CachedSteps", "cached_steps", "place_of"]


class CachedSteps(QuerySet[CachedStep]):
    """Cached steps as the admin asks for them. Only the first bytes of entries are read.

    It counts, slices, gets and deletes, and can be narrowed to a cache, a workflow, a prefix or primary keys. Whatever
    else a queryset does raises :exc:`~django.db.NotSupportedError`, because there is no table.
    """

    def __init__(
        self, selection: Selection, places: Iterable[Place] | None = None, listing: Listing | None = None
    ) -> None:
        super().__init__(CachedStep)
        self.selection = selection
        self._places = None if places is None else list(places)
        #: One page of it and what surrounds that, once it was :meth:`listed`.
        self.listing = listing

    #: By alias, scope and key.
    ordered = True

    def narrowed(self, **changes: Any) -> CachedSteps:
        """Those of them that are also in this cache (``aliases``), of this ``workflow`` or with this ``prefix``."""
        selection = replace(self.selection, **changes)
        return self if selection == self.selection else CachedSteps(selection)

    def filter(self, *args: Any, **kwargs: Any) -> CachedSteps:
        """By primary keys: ``filter(pk__in=[...])``, and nothing else."""
        if args or list(kwargs) != ["pk__in"]:
            self._chain()
        places = [Place.of(str(pk)) for pk in kwargs["pk__in"]]
        return CachedSteps(self.selection, [each for each in places if each and each.alias in self.selection.aliases])

    def get(self, *args: Any, **kwargs: Any) -> CachedStep:
        """By primary key: ``get(pk=...)``. Raises ``CachedStep.DoesNotExist``."""
        pk = kwargs.get("pk", kwargs.get("id"))
        for step in self.filter(pk__in=[pk]):
            return step
        raise CachedStep.DoesNotExist(f"There is no cached step {pk!r}.")

    def listed(self, page: int, size: int) -> CachedSteps:
        """The same with one page and all that is told around it, gathered at once. Nothing else is asked for then."""
        listing = self.selection.listing(max(0, page - 1) * size, size)
        if page > 1 and listing.count <= size:
            # Django shows what fits on one page whichever page is asked for.
            listing = self.selection.listing(0, size)
        return CachedSteps(self.selection, listing=listing)

    def count(self) -> int:
        if self.listing is not None:
            return self.listing.count
        return self.selection.count if self._places is None else len(self)

    def exists(self) -> bool:
        return self.count() > 0

    def iterator(self, chunk_size: int | None = None) -> Iterator[CachedStep]:
        return iter(self)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Remove them from their caches."""
        removed = remove(sorted(map(place_of, self)))
        return removed, {"stepflows.CachedStep": removed}

    def __getitem__(self, wanted: Any) -> Any:
        if self._result_cache is not None or self._places is not None or not isinstance(wanted, slice):
            return list(self)[wanted]
        if self.listing is not None:
            return _listed(self.listing)
        return _steps(self.selection.page(wanted.start or 0, wanted.stop))

    def _fetch_all(self) -> None:
        if self._result_cache is None and self.listing is not None:
            self._result_cache = _listed(self.listing)
        elif self._result_cache is None:
            places = self.selection.page(0, None) if self._places is None else self._places
            self._result_cache = _steps(places)

    def _clone(self) -> CachedSteps:
        return self

    def _chain(self) -> NoReturn:
        raise NotSupportedError(
            "Cached steps are entries of caches and not rows of a table. Use the methods of stepflows.StepCache."
        )


def cached_steps(queryset: Any) -> CachedSteps:
    """The same, for the type checker: Django's methods hand on whatever ``get_queryset`` gave."""
    return cast("CachedSteps", queryset)


def place_of(step: CachedStep) -> Place:
    """Where a listed step lies."""
    return cast("Place", Place.of(step.pk))


def _steps(places: list[Place]) -> list[CachedStep]:
    return _known(places, heads(places))


def _listed(listing: Listing) -> list[CachedStep]:
    return _known(listing.places, listing.heads)


def _known(places: list[Place], found: list[Head | Damaged | None]) -> list[CachedStep]:
    return [_step(place, head) for place, head in zip(places, found, strict=True) if head is not None]


def _step(place: Place, head: Head | Damaged) -> CachedStep:
    scope, key = place.name
    version = namespace_of(scope)[1]
    step = CachedStep(
        id=place.id,
        alias=place.alias,
        scope=scope,
        workflow=workflow_of(scope),
        version="" if version is None else printable(version),
        key=printable(key),
        ok=head.ok if isinstance(head, Head) else None,
    )
    if isinstance(head, Head):
        stamp = head.stamp
        step.size = head.size
        step.label, step.run_id = printable(stamp.label), printable(stamp.run_id)
        step.duration = stamp.duration
        step.stored_at, step.expires_at = moment_of(stamp.stored_at), moment_of(stamp.expires_at)
    return step
