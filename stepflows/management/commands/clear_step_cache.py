"""``manage.py clear_step_cache``: remove cached steps, so that they run again."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, no_translations

from stepflows.cachedsteps import (
    Place,
    Selection,
    aliases_in_use,
    heads,
    legible,
    lost_indexes,
    rebuild,
    remove,
    workflow_of,
)
from stepflows.caches import StepCache, backend_for
from stepflows.caches.codec import Head
from stepflows.caches.names import Name, namespace_of, scope_of
from stepflows.engine.keys import check_key
from stepflows.errors import CacheUnavailable, CannotList, InvalidStepKey, InvalidUse, hint
from stepflows.management.progress import progress
from stepflows.registry import registry

__all__ = ["Command"]

_NAMED_ONE_BY_ONE: Final = 5


@dataclass(frozen=True)
class Target:
    """What is to be removed: some keys where they were found, or a selection; of it, perhaps only errors."""

    selection: Selection
    keys: list[str]
    places: list[Place]
    errors: bool

    def batches(self) -> Iterator[list[Place]]:
        for places in [self.places] if self.keys else self.selection.walk():
            yield _errors_among(places) if self.errors else places

    def count(self) -> int:
        """How many entries that is now."""
        return sum(map(len, self.batches())) if self.keys or self.errors else self.selection.count

    @property
    def is_wide(self) -> bool:
        """Whether it is more than one entry for each key that was named."""
        return not self.keys or len(self.places) > len({place.name.key for place in self.places})

    @property
    def missing(self) -> list[str]:
        """Those of the keys that were not found."""
        found = {place.name.key for place in self.places}
        return [key for key in dict.fromkeys(self.keys) if key not in found]

    def described(self, count: int) -> str:
        """So many of them, and what they are."""
        steps = f"{count:,} cached {'error' if self.errors else 'step'}{'' if count == 1 else 's'}"
        few = 0 < len(self.places) <= _NAMED_ONE_BY_ONE
        return f"{steps} ({'; '.join(map(_told, self.places)) if few else self.selection})"


class Command(BaseCommand):
    """Says what it removes; asks before it removes more than the keys that were named."""

    help = (
        "Removes cached steps, so that they run again when they are next asked for. Name keys, a workflow, a prefix or "
        "--all. A key without --workflow is removed from every workflow that has it; if several do, the command asks."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="KEY", help="The key of a step, such as user:1.")
        parser.add_argument("--workflow", metavar="NAME", help="Only this workflow, in all its versions.")
        parser.add_argument("--prefix", metavar="P", help="Every key that begins with this.")
        parser.add_argument(
            "--cache", metavar="ALIAS", help="Only this alias of CACHES; without it, all that registered workflows use."
        )
        parser.add_argument("--errors", action="store_true", help="Only steps that failed.")
        parser.add_argument("--all", action="store_true", help="Every key of every workflow, or of the one named.")
        parser.add_argument("--dry-run", action="store_true", help="Say how many there are and remove nothing.")
        parser.add_argument(
            "--noinput", "--no-input", action="store_false", dest="interactive", help="Do not ask before a wide clear."
        )
        parser.add_argument(
            "--json", action="store_true", help="Print what was done as one JSON object; with --noinput or --dry-run."
        )

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        _check_what_is_said(options)
        if options["json"]:
            # It is for scripts, which read one object and have nobody to ask.
            options |= {"verbosity": 0, "interactive": False}
        try:
            for alias in lost_indexes((options["cache"],) if options["cache"] else aliases_in_use()):
                found = rebuild(alias)
                self._say(
                    f"The index of the cache “{alias}” was lost. The whole cache was looked through to list its "
                    f"{found:,} cached step{'' if found == 1 else 's'} anew.",
                    options,
                )
            target = _target(options)
            for key in target.missing:
                self._say(f"No cached step has the key “{key}” ({target.selection}).", options)
            count = target.count()
            removed = self._clear(target, count, options)
        except (CacheUnavailable, CannotList, InvalidUse) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            told = {"found": count, "removed": removed, "missing": target.missing}
            self.stdout.write(json.dumps(told))

    def _clear(self, target: Target, count: int, options: dict[str, Any]) -> int:
        """How many were removed."""
        what = target.described(count)
        if not count:
            self._say(f"There is nothing to remove: {what}.", options)
            return 0
        if options["dry_run"]:
            self._say(f"Would remove {what}.", options)
            return 0
        if target.is_wide and options["interactive"]:
            self._ask(f"This removes {what}. They run again when they are next asked for.")
        removed = self._remove(target, count, options)
        self._say(self.style.SUCCESS(f"Removed {target.described(removed)}."), options)
        return removed

    def _ask(self, question: str) -> None:
        try:
            answer = input(f"{question}\nType 'yes' to continue, or 'no' to cancel: ")
        except EOFError:
            raise CommandError("There is nobody to ask; nothing was removed. Give --noinput to go ahead.") from None
        if answer.strip().lower() != "yes":
            raise CommandError("Cancelled; nothing was removed.")

    def _remove(self, target: Target, count: int, options: dict[str, Any]) -> int:
        removed = 0
        try:
            with progress(count, self.stdout, partial(self._say, options=options)) as tell:
                for places in target.batches():
                    removed += remove(places)
                    if options["verbosity"] > 0:
                        tell(removed)
        except CacheUnavailable as error:
            raise CommandError(f"{error} Removed before that: {target.described(removed)}.") from error
        return removed

    def _say(self, text: str, options: dict[str, Any]) -> None:
        if options["verbosity"] > 0:
            self.stdout.write(text)
            self.stdout.flush()


def _check_what_is_said(options: dict[str, Any]) -> None:
    wide = [name for name in ("prefix", "all") if options[name]]
    try:
        for key in options["keys"]:
            check_key(key, "clear_step_cache")
    except InvalidStepKey as error:
        raise CommandError(str(error)) from None
    if options["prefix"] == "":
        raise CommandError("The prefix is empty, which would be every key. For that, leave --prefix out.")
    if options["keys"] and wide:
        raise CommandError(f"Give keys or --{wide[0]}, not both.")
    if options["json"] and options["interactive"] and not options["dry_run"]:
        raise CommandError("With --json nobody is asked. Give --noinput to go ahead, or --dry-run.")
    if not (options["keys"] or wide or options["workflow"] is not None or options["errors"]):
        raise CommandError("Say what to clear: keys, --workflow NAME, --prefix P, --errors or --all.")


def _target(options: dict[str, Any]) -> Target:
    aliases = (options["cache"],) if options["cache"] else aliases_in_use()
    selection = Selection(aliases, options["workflow"], options["prefix"] or "")
    places = _found(selection, options["keys"])
    if not places and selection.workflow is not None:
        _check_workflow(selection.workflow, aliases)
    return Target(selection, options["keys"], places, options["errors"])


def _found(selection: Selection, keys: list[str]) -> list[Place]:
    """Where the keys are. A cache that cannot list is asked for them in the workflows that are known."""
    places = [
        Place(alias, Name(scope, key))
        for alias in selection.aliases
        for scope in sorted(_scopes(alias, selection.workflow))
        for key in dict.fromkeys(keys)
    ]
    return [place for place, head in zip(places, heads(places), strict=True) if head is not None]


def _scopes(alias: str, workflow: str | None) -> set[str]:
    backend = backend_for(alias)
    scopes = set(backend.scopes() if backend.can_list else ())
    scopes.update(cache.scope for cache in _registered().values() if isinstance(cache, StepCache))
    if workflow is None:
        return scopes
    return {scope_of(workflow), *(scope for scope in scopes if workflow_of(scope) == workflow)}


def _check_workflow(name: str, aliases: tuple[str, ...]) -> None:
    """Raises :exc:`CommandError` for a workflow that cannot have entries in these caches."""
    listed = set(Selection(tuple(alias for alias in aliases if backend_for(alias).can_list)).workflows)
    registered = _registered()
    if name in listed:
        return
    if name not in registered:
        raise CommandError(_unknown(name, aliases, listed | set(registered)))
    cache = registered[name]
    if not isinstance(cache, StepCache):
        raise CommandError(
            f"Workflow {name!r} keeps its steps in a {type(cache).__name__}, not in one of Django's caches."
        )
    if cache.namespace != name:
        raise CommandError(
            f"Workflow {name!r} shares its steps under the namespace {cache.namespace!r}. To remove those, of all who "
            f"share them, give --workflow {cache.namespace!r}."
        )


def _registered() -> dict[str, Any]:
    return {workflow.name: workflow.cache for workflow in registry.all()}


def _unknown(name: str, aliases: tuple[str, ...], known: set[str]) -> str:
    places = ", ".join(map(repr, aliases))
    return (
        f"No workflow {name!r} is registered, and none of that name has steps in the cache {places} (--cache names "
        f"another one). {hint(name, map(legible, known))}"
    )


def _errors_among(places: list[Place]) -> list[Place]:
    return [place for place, head in zip(places, heads(places), strict=True) if isinstance(head, Head) and not head.ok]


def _told(place: Place) -> str:
    scope, key = place.name
    version = namespace_of(scope)[1]
    told = str(Selection((place.alias,), workflow_of(scope)))
    return legible(f"{told}{f', version “{version}”' if version else ''}, key “{key}”")
