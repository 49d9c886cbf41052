"""The example site with all that it needs."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, CommandParser

from project import services


class Command(BaseCommand):
    help = "Starts the example: site, Celery worker, cache server and payment service. Ctrl-C stops them all."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="of the site (%(default)s)")
        parser.add_argument(
            "--pause",
            type=float,
            default=0.8,
            help="seconds before each answer of the payment service, so that there is something to watch (%(default)s)",
        )

    def handle(self, *, port: int, pause: float, **options: Any) -> None:
        if not services.is_free(port):
            raise CommandError(f"Something listens on port {port} already. Choose another one with --port.")
        try:
            with services.stopped_by_signals():
                self.serve(settings.SHOP_FOLDER, port, pause)
        except services.NotReady as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.stdout.write("\nEverything is stopped.")

    def serve(self, folder: Path, port: int, pause: float) -> None:
        with ExitStack() as stack:
            environment = stack.enter_context(services.surroundings(folder, os.environ.get("REDIS_URL"), pause))
            if services.manage(environment, "make_shop"):
                raise CommandError("The shop could not be set up.")
            running = [
                stack.enter_context(services.worker(folder, environment)),
                stack.enter_context(services.site(folder, environment, port)),
            ]
            self.say_where_to_look(folder, port)
            while True:
                for service in running:
                    service.check()
                time.sleep(0.5)

    def say_where_to_look(self, folder: Path, port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        self.stdout.write(
            f"\n  Shop       {url}/orders/   (open an order and check it out)\n"
            f"  Progress   {url}/runs/...  (where that takes you: each step as it happens)\n"
            f"  Quotes     {url}/orders/1/shipping/   (an async view that runs a workflow itself)\n"
            f"  Admin      {url}/admin/   (admin, password admin)\n"
            f"  Mails      {folder / 'mails'}\n"
            f"  Logs       {folder}/*.log\n\n"
            "Ctrl-C stops everything."
        )
        self.stdout.flush()
