"""What a run did, step by step, as a test asserts it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from stepflows.models import Run

__all__ = ["assert_steps"]

#: A step by its label, or by label and key.
Name: TypeAlias = str | tuple[str, str | None]
Pair: TypeAlias = tuple[str, str | None]

#: What the outcomes in a run's row are called here.
_CALLED: Final = {"error": "failed", "replayed_error": "replayed", "waited": "cached"}


def assert_steps(
    run: Run,
    *,
    executed: Sequence[Name] | None = None,
    cached: Sequence[Name] | None = None,
    failed: Sequence[Name] | None = None,
    replayed: Sequence[Name] | None = None,
) -> None:
    """Assert what became of the steps of a run's latest attempt, which is read from the database first.

    ``executed`` ran and succeeded; of ``cached`` the result was there, or somebody else made it meanwhile; ``failed``
    ran and failed; and ``replayed`` are failures that were there. Steps are named by label (``"charge"``) or by label
    and key (``("charge", "order:7:charge")``), each as often as it occurs, in any order. What is not given is not
    looked at; ``[]`` says that there are none::

        assert_steps(run, executed=["charge"], cached=["load"], failed=[])
    """
    __tracebackhide__ = True
    run.refresh_from_db()
    steps = [(_CALLED.get(step["outcome"], step["outcome"]), (step["label"], step["key"])) for step in run.steps]
    given = {"executed": executed, "cached": cached, "failed": failed, "replayed": replayed}
    problems = [
        f"  {outcome}: {problem}"
        for outcome, names in given.items()
        if names is not None
        for problem in _problems(_listed(names), [pair for called, pair in steps if called == outcome])
    ]
    if problems:
        head = f"Run {run.pk} of workflow {run.workflow!r} ({run.state}) has other steps:"
        table = [f"  {outcome}: {_text(pair)}" for outcome, pair in steps] or ["  none"]
        raise AssertionError("\n".join([head, *problems, "All of its steps:", *table, f"Its result: {run.result!r}"]))


def _problems(names: Sequence[Name], pairs: Sequence[Pair]) -> Iterator[str]:
    left = list(pairs)
    # Those with a key first, so that no label takes the step that one of them means.
    for name in sorted(names, key=lambda name: isinstance(name, str)):
        found = next((pair for pair in left if name in (pair, pair[0])), None)
        if found is None:
            yield f"missing {_text(name)}"
        else:
            left.remove(found)
    for pair in left:
        yield f"not expected {_text(pair)}"


def _listed(names: Sequence[Name]) -> Sequence[Name]:
    # A lone label would be taken for a list of letters.
    return [names] if isinstance(names, str) else names


def _text(name: Name) -> str:
    if isinstance(name, str):
        return repr(name)
    label, key = name
    return f"{label!r} without a key" if key is None else f"{label!r} ({key!r})"
