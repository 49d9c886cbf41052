"""The part of the demo that uses the site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser, call_command
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from project.shop.models import Order
from project.shop.passes import PAID, Pass, check_out, complaints, expected_end, expected_passes


class Command(BaseCommand):
    help = "Checks orders out on a running worker, again, and once more with one key cleared. manage.py demo calls it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--orders", type=int, default=200, help="how many (%(default)s)")

    def handle(self, *, orders: int, **options: Any) -> None:
        console = Console()
        with_goods = Order.objects.select_related("customer").prefetch_related("lines__product")
        ends = {order: expected_end(order) for order in with_goods.order_by("pk")[:orders]}
        paid = next((order for order, end in ends.items() if end == PAID), None)
        if paid is None:
            raise CommandError("None of these orders can be paid, so there is no charge to clear. Give more --orders.")
        key = f"order:{paid.pk}:charge"

        try:
            passes = [_pass(console, name, list(ends)) for name in ("First pass", "Second pass")]
            call_command("clear_step_cache", key, workflow="checkout", interactive=False, stdout=self.stdout)
            passes.append(_pass(console, "Third pass", list(ends)))
        except TimeoutError as error:
            raise CommandError(f"{error} Is a worker running?") from error

        console.print(_table(passes, key))
        if wrong := list(complaints(passes, expected_passes(Counter(ends.values())))):
            raise CommandError("The numbers do not hold:\n" + "\n".join(wrong))
        self.stdout.write("Every order came to the same end three times, and no card was charged twice.")


def _pass(console: Console, name: str, orders: Sequence[Order]) -> Pass:
    with _progress(console, name, len(orders)) as progress:
        return check_out(orders, progress)


@contextmanager
def _progress(console: Console, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere, two lines."""
    if not console.is_terminal:
        console.print(f"{name}: {total} orders ...")
        yield lambda _: None
        return
    columns = TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)


def _table(passes: Sequence[Pass], key: str) -> Table:
    table = Table(caption=f"Cleared before the third pass: {key}")
    table.add_column()
    for heading in ("first pass", "again", "one key cleared"):
        table.add_column(heading, justify="right")
    for label in passes[0].numbers:
        table.add_row(label, *(str(one.numbers[label]) for one in passes))
    table.add_row("seconds", *(f"{one.seconds:.1f}" for one in passes))
    return table
