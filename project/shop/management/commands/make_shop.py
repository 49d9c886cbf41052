"""The shop's database."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import BaseCommand, CommandParser, call_command

from project.shop.factories import make_shop
from project.shop.models import Order


class Command(BaseCommand):
    help = "Sets up the database and fills it with customers, products and orders, unless it has some."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--orders", type=int, default=3000, help="how many (%(default)s)")

    def handle(self, *, orders: int, **options: Any) -> None:
        settings.SHOP_FOLDER.mkdir(parents=True, exist_ok=True)
        call_command("migrate", verbosity=0)
        if not Order.objects.exists():
            make_shop(orders)
        if not User.objects.filter(username="admin").exists():
            User.objects.create_superuser("admin", password="admin")  # noqa: S106 - it is printed by manage.py serve
        self.stdout.write(f"The shop has {Order.objects.count()} orders.")
