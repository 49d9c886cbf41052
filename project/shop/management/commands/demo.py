"""The whole job before your eyes, in half a minute."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.core.management import BaseCommand, CommandError, CommandParser

from project import services


class Command(BaseCommand):
    help = (
        "Checks orders out on a real worker, again, and once more with one key cleared, and compares what was executed "
        "and charged. Everything it needs is started, in a temporary folder, and stopped again."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--orders", type=int, default=200, help="how many (%(default)s)")

    def handle(self, *, orders: int, **options: Any) -> None:
        try:
            with services.stopped_by_signals(), TemporaryDirectory(prefix="stepflows-demo-") as folder:
                exit_code = self.run(Path(folder), orders)
        except services.NotReady as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted. Everything is stopped.", returncode=130) from None
        if exit_code:
            raise SystemExit(exit_code)

    def run(self, folder: Path, orders: int) -> int:
        """The exit code. The work is done in a process of its own, whose settings name the servers started here."""
        self.stdout.write("Starting a cache server, the payment service and a worker ...")
        self.stdout.flush()
        with services.surroundings(folder) as environment:
            if failed := services.manage(environment, "make_shop"):
                return failed
            with services.worker(folder, environment):
                return services.manage(environment, "three_passes", "--orders", str(orders))
