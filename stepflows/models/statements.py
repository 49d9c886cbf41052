"""Statements that Django writes once: for one row, writing one takes longer than executing it.

The model's own querysets write them, for its own fields and any backend. Where a value is to go they are given a place
instead; whenever the statement is executed, the fields prepare the values for the places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

from django.db import connections, models, transaction
from django.db.models import sql
from django.db.models.expressions import Expression

__all__ = ["read", "update"]

M = TypeVar("M", bound=models.Model)

#: Of each kind, the latest used. Whoever uses more has them written again.
_KEPT: Final = 64


def read(model: type[M], using: str, conditions: Mapping[str, Any]) -> M | None:
    """The first row whose fields have these values, none of which is ``None``; ``None`` if there is no such row."""
    statement = _selection(model, using, tuple(conditions))
    rows: models.QuerySet[M] = models.QuerySet(model, using=using)
    return next(iter(rows.raw(statement.sql, statement.parameters([*conditions.values()]))), None)


def update(model: type[M], using: str, conditions: Mapping[str, Any], changes: Mapping[str, Any]) -> int:
    """Change the rows whose fields have these values, none of which is ``None``; the number of the rows.

    A change may be an expression. It is a part of the statement, with whatever values are in it.
    """
    written = tuple((name, value if hasattr(value, "resolve_expression") else None) for name, value in changes.items())
    statement = _change(model, using, tuple(conditions), written)
    parameters = statement.parameters([*conditions.values(), *changes.values()])
    with transaction.mark_for_rollback_on_error(using), connections[using].cursor() as cursor:
        cursor.execute(statement.sql, parameters)
        done: int = cursor.rowcount
    return done


class _Place(Expression):
    """Stands for a value of a field which is not known yet: the one with that number."""

    def __init__(self, number: int, field: Any) -> None:
        super().__init__(output_field=field)
        self.number = number

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return "%s", (self,)


class _Statement(NamedTuple):
    """One of a database, with its parameters: places and the values of expressions."""

    using: str
    sql: str
    template: Sequence[Any]

    def parameters(self, values: Sequence[Any]) -> list[Any]:
        """Those with the values in their places."""
        connection = connections[self.using]
        return [
            each.output_field.get_db_prep_save(values[each.number], connection) if isinstance(each, _Place) else each
            for each in self.template
        ]


@lru_cache(_KEPT)
def _selection(model: type[models.Model], using: str, conditions: Sequence[str]) -> _Statement:
    query = _rows(model, using, conditions).query
    return _Statement(using, *query.get_compiler(using).as_sql())


@lru_cache(_KEPT)
def _change(
    model: type[models.Model], using: str, conditions: Sequence[str], changes: Sequence[tuple[str, Any]]
) -> _Statement:
    query: Any = _rows(model, using, conditions).query.chain(sql.UpdateQuery)
    query.add_update_values(
        {
            name: _place(model, name, number) if expression is None else expression
            for number, (name, expression) in enumerate(changes, len(conditions))
        }
    )
    return _Statement(using, *query.get_compiler(using).as_sql())


def _rows(model: type[M], using: str, conditions: Sequence[str]) -> models.QuerySet[M]:
    places = {name: _place(model, name, number) for number, name in enumerate(conditions)}
    return models.QuerySet(model, using=using).order_by().filter(**places)


def _place(model: type[models.Model], name: str, number: int) -> _Place:
    return _Place(number, model._meta.get_field(name))
