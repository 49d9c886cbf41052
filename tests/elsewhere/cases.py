"""What holds on that site. ``tests/admin/test_elsewhere.py`` has Django's own runner go through them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.test import TestCase
from django.urls import reverse

from stepflows import Ok
from stepflows.cachedsteps import heads
from stepflows.caches.codec import Head
from stepflows.models import Run
from tests.entries import keys, put
from tests.runrows import a_run, a_step

STEPS = "admin:stepflows_cachedstep_"
RUNS = "admin:stepflows_run_"


def _page(name: str, *args: Any) -> str:
    return reverse(name, args=args, current_app="office")


class Elsewhere(TestCase):
    def setUp(self) -> None:
        self.person = get_user_model().objects.create_superuser("jo@example.org", "secret")
        self.client.force_login(self.person)
        self.step = put("locmem", "Lieferung", "Kunde:1", Ok(1234.5), ago=7300, ttl=90_000)
        self.addCleanup(put, "locmem", "Lieferung", "Kunde:1")
        # 23 November 2026, 23:30 in Tokyo, where that is the site's time.
        self.began = dt.datetime(2026, 11, 23, 23, 30)  # noqa: DTZ001 - without a zone
        ended = self.began + dt.timedelta(seconds=83.2)
        attempt = {"worker": "w", "started_at": self.began.isoformat(), "reason": "failed", "steps": [a_step()]}
        self.run_row = a_run(
            "Lieferung",
            created_at=self.began,
            started_at=self.began,
            finished_at=ended,
            state="failed",
            executed=1234,
            steps=[a_step()],
            history=[attempt],
        )

    def test_every_page_opens(self) -> None:
        pages = [
            _page(f"{STEPS}changelist"),
            _page(f"{STEPS}change", quote(self.step.id)),
            _page(f"{STEPS}delete", quote(self.step.id)),
            _page(f"{STEPS}history", quote(self.step.id)),
            _page(f"{STEPS}clear"),
            _page(f"{STEPS}clear") + "?cache=locmem&scope=all",
            _page(f"{RUNS}changelist"),
            _page(f"{RUNS}changelist") + "?created_at__year=2026&created_at__month=11&created_at__day=23",
            _page(f"{RUNS}change", self.run_row.pk),
            _page(f"{RUNS}live", self.run_row.pk),
        ]
        for url in pages:
            response = self.client.get(url)
            assert response.status_code == 200, url
            assert '"/admin/' not in response.content.decode(), url

    def test_times_are_the_sites_own(self) -> None:
        """Those of runs lie so in the database, those of steps are told in it."""
        text = self.client.get(_page(f"{RUNS}change", self.run_row.pk)).content.decode()
        assert "23. November 2026, 23:30:00" in text
        assert "23. November 2026, 23:31:23" in text
        listed = self.client.get(_page(f"{RUNS}changelist") + "?created_at__day=23").content.decode()
        assert "1 min 23 s" in listed
        text = self.client.get(_page(f"{STEPS}change", quote(self.step.id))).content.decode()
        (head,) = heads([self.step])
        assert isinstance(head, Head)
        stored = dt.datetime.fromtimestamp(head.stamp.stored_at, dt.timezone(dt.timedelta(hours=9)))
        assert f"{stored:%H:%M:%S}" in text
        listed = self.client.get(_page(f"{STEPS}changelist")).content.decode()
        assert "vor\xa02\xa0Stunden" in listed
        assert "in\xa022\xa0Stunden" in listed

    def test_numbers_are_written_as_there(self) -> None:
        assert "1.234 ausgeführt" in self.client.get(_page(f"{RUNS}change", self.run_row.pk)).content.decode()

    def test_a_run_that_is_under_way_is_timed(self) -> None:
        row = a_run("Lieferung", state="running", started_at=dt.datetime.now() - dt.timedelta(hours=2))  # noqa: DTZ005
        assert "2 h 0 min" in self.client.get(_page(f"{RUNS}change", row.pk)).content.decode()

    def test_what_is_done_is_in_the_log_of_whoever_did_it(self) -> None:
        self.client.post(_page(f"{STEPS}delete", quote(self.step.id)), {"post": "yes"})
        assert keys("locmem", "Lieferung") == []
        put("locmem", "Lieferung", "Kunde:1")
        put("locmem", "Lieferung", "Kunde:2")
        self.client.post(_page(f"{STEPS}clear"), {"cache": "locmem", "scope": "workflow:Lieferung"})
        assert keys("locmem", "Lieferung") == []
        self.client.post(_page(f"{RUNS}changelist"), {"action": "resume_runs", "_selected_action": self.run_row.pk})
        assert Run.objects.get().state == "queued"
        entries = LogEntry.objects.order_by("pk")
        assert {entry.user for entry in entries} == {self.person}
        assert [entry.object_repr for entry in entries][:2] == [
            "Lieferung Kunde:1",
            "2 Schritte im Cache (Workflow „Lieferung“, Cache „locmem“)",
        ]
