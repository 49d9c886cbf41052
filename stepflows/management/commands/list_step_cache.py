"""``manage.py list_step_cache``: which steps are cached."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, no_translations
from django.utils import timezone

from stepflows.cachedsteps import (
    Place,
    Selection,
    aliases_in_use,
    heads,
    legible,
    lost_indexes,
    moment_of,
    rebuild,
    workflow_of,
)
from stepflows.caches.codec import Head
from stepflows.caches.names import namespace_of
from stepflows.errors import CacheUnavailable, CannotList, InvalidUse

__all__ = ["Command"]

_BATCH = 1000


class Command(BaseCommand):
    """Reads the index and the first bytes of each entry; no value is read."""

    help = "Lists cached steps: workflow, key, label, what came of it, and when it was stored, a line each."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--workflow", metavar="NAME", help="Only this workflow, in all its versions.")
        parser.add_argument("--prefix", metavar="P", default="", help="Only keys that begin with this.")
        parser.add_argument(
            "--cache", metavar="ALIAS", help="Only this alias of CACHES; without it, all that registered workflows use."
        )
        parser.add_argument(
            "--limit", metavar="N", type=int, default=100, help="At most so many lines (100), or 0: all."
        )
        parser.add_argument("--json", action="store_true", help="A JSON object a line, with all that is known.")
        parser.add_argument(
            "--rebuild", action="store_true", help="First look through the whole cache and list what is there anew."
        )

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        if options["limit"] < 0:
            raise CommandError("--limit is negative; give how many lines to print, or 0 for all.")
        aliases = (options["cache"],) if options["cache"] else aliases_in_use()
        # What is said beside the list is no error.
        self.stderr.style_func = None
        try:
            self._prepare(aliases, rebuild_all=options["rebuild"])
            written = _as_json if options["json"] else _as_text
            self._list(Selection(aliases, options["workflow"], options["prefix"]), options["limit"], written)
        except (CacheUnavailable, CannotList, InvalidUse) as error:
            raise CommandError(str(error)) from error

    def _prepare(self, aliases: Sequence[str], *, rebuild_all: bool) -> None:
        for alias in aliases if rebuild_all else ():
            self.stderr.write(f"Looked through the cache “{alias}”: it holds {rebuild(alias):,} cached steps.")
        for alias in lost_indexes(aliases):
            self.stderr.write(
                self.style.WARNING(
                    f"The index of the cache “{alias}” was lost, so steps may be missing here. To look through "
                    "the whole cache and list them anew: manage.py list_step_cache --rebuild"
                )
            )

    def _list(self, selection: Selection, limit: int, written: Callable[[Place, Head | None], str]) -> None:
        shown = 0
        for places in selection.walk() if not limit else [selection.page(0, limit)]:
            for start in range(0, len(places), _BATCH):
                self._print(places[start : start + _BATCH], written)
            shown += len(places)
        total = selection.count
        more = f"; --limit 0 shows all {total:,}" if total > shown else ""
        self.stderr.write(f"{shown:,} cached step{'' if shown == 1 else 's'} ({selection}){more}.")

    def _print(self, places: list[Place], written: Callable[[Place, Head | None], str]) -> None:
        for place, head in zip(places, heads(places), strict=True):
            if head is not None:
                self.stdout.write(written(place, head if isinstance(head, Head) else None))


def _as_text(place: Place, head: Head | None) -> str:
    scope, key = place.name
    version = namespace_of(scope)[1]
    workflow = workflow_of(scope) + (f"@{version}" if version else "")
    columns = [workflow, key, "", "damaged", ""]
    if head is not None:
        columns[2:] = [head.stamp.label, "ok" if head.ok else "error", str(_moment(head.stamp.stored_at))]
    return "\t".join(map(legible, columns))


def _as_json(place: Place, head: Head | None) -> str:
    scope, key = place.name
    told: dict[str, Any] = {
        "cache": place.alias,
        "workflow": workflow_of(scope),
        "version": namespace_of(scope)[1],
        "key": key,
    }
    if head is None:
        return json.dumps(told | {"damaged": True})
    stamp = head.stamp
    told |= {"label": stamp.label, "ok": head.ok, "size": head.size, "duration": stamp.duration, "run": stamp.run_id}
    return json.dumps(told | {"stored": _moment(stamp.stored_at), "expires": _moment(stamp.expires_at)})


def _moment(seconds: float | None) -> str | None:
    """In the site's time zone."""
    moment = moment_of(seconds)
    return None if moment is None else timezone.localtime(moment).isoformat(" ", "seconds")
