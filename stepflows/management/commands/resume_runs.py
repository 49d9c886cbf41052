"""``manage.py resume_runs``: find the runs that nobody looks after any more, and have workers go on with them."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from stepflows import conf
from stepflows.models.tables import told
from stepflows.recovery import Recovered, resume_runs

__all__ = ["Command"]


class Command(BaseCommand):
    """Exit code 0, however many there are; 1 when the database cannot be asked."""

    help = (
        "Queue runs again whose worker was lost, send runs again whose message was lost, and remove old ones. Every "
        "Celery worker does so by itself; this is for where none is running."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--loop", action="store_true", help="Go on looking, every three heartbeats, until Ctrl-C.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            while self._look() and options["loop"]:
                # Nobody needs a connection meanwhile. Whoever calls this for one look may go on with his.
                connections.close_all()
                time.sleep(3 * conf.settings().HEARTBEAT)
        except KeyboardInterrupt:
            self.stdout.write("Stopped.")

    def _look(self) -> bool:
        try:
            self.stdout.write(_line(resume_runs()))
        except DatabaseError as error:
            raise CommandError(f"The runs cannot be looked at: {told(error)}") from error
        self.stdout.flush()
        return True


def _line(recovered: Recovered) -> str:
    return (
        f"{recovered.resumed} resumed, {recovered.sent} sent again, {recovered.given_up} given up, "
        f"{recovered.removed} old removed."
    )
