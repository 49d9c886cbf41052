"""Nobody on the staff does more in the admin than the permissions say, whatever the request holds."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core.cache import caches
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stepflows import Ok, workflow
from stepflows.cachedsteps import Place, printable
from stepflows.caches import backend_for
from stepflows.caches.names import Name, lease_key
from stepflows.messages import withheld
from stepflows.models import CachedStep, Run
from stepflows.registry import registry
from tests.entries import keys, put
from tests.pages import CLEAR, LIST, page, step_page
from tests.runrows import a_run, a_step
from tests.security.forging import entry, exception, member, packed, plant, record, stored
from tests.servers import Valkey

pytestmark = pytest.mark.django_db

SECRET = "4242-4242"
MARKUP = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture
def alias(settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The only cache with steps of those that there are."""
    settings.STEPFLOWS = {"CACHE": "locmem"}
    monkeypatch.setattr(registry, "_workflows", {})
    workflow("checkout", cache="locmem")(lambda step, deps, order_id: None)
    return "locmem"


@pytest.fixture
def step(alias: str) -> Place:
    """A cached step whose value nobody is to see."""
    return put(alias, "checkout", "order:7", Ok(SECRET))


@pytest.fixture
def run(alias: str) -> Run:
    """A failed run whose arguments nobody is to see."""
    return a_run(state="failed", kwargs={"order_id": SECRET}, summary=f"order_id={SECRET!r}", steps=[a_step()])


@pytest.fixture
def no_broker_is_asked() -> Iterator[list[Run]]:
    sent: list[Run] = []
    with withheld(sent.append):
        yield sent


@pytest.fixture
def person(django_user_model: Any) -> Callable[..., Client]:
    """Somebody on the staff with these permissions, logged in."""

    def make(*codenames: str, **more: Any) -> Client:
        user = django_user_model.objects.create_user("somebody", is_staff=True, **more)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return make


def addresses(step: Place, run: Run) -> list[str]:
    """Every address that the two admins answer to, with the step and the run in place of the object."""
    found = []
    for model, pk in ((CachedStep, step.id), (Run, str(run.pk))):
        for pattern in admin.site._registry[model].get_urls():
            route = str(pattern.pattern).replace("<path:object_id>", pk)
            found.append(f"/admin/stepflows/{model._meta.model_name}/{route}")
    return found


EVERYTHING = {
    "post": "yes",
    "cache": "locmem",
    "scope": "all",
    "clearing": "1",
    "key": "order:7",
    "epoch": "0",
    "select_across": "1",
    "index": "0",
}


def test_no_address_serves_those_without_permission(
    step: Place, run: Run, person: Callable[..., Client], no_broker_is_asked: list[Run]
):
    """No page shows a value and no form does anything, at any address of either admin, by any method."""
    client = person()
    selected = {"_selected_action": [step.id, str(run.pk)]}
    for address in addresses(step, run):
        answers = [client.get(address, EVERYTHING), client.head(address), client.options(address)]
        for action in ("delete_selected", "resume_runs", "retry_runs", "cancel_runs"):
            answers += [client.post(address, {**EVERYTHING, **selected, "action": action})]
        for answer in answers:
            # Django leads the bare address of an object to its page.
            assert answer.status_code in (403, 301, 302), address
            assert SECRET not in answer.content.decode()
    _nothing_happened(run, no_broker_is_asked)


def _nothing_happened(run: Run, sent: list[Run]) -> None:
    run.refresh_from_db()
    assert (run.state, run.epoch, sent, keys("locmem", "checkout")) == ("failed", 0, [], ["order:7"])


@pytest.mark.parametrize(
    "action", ["delete_selected", "resume_runs", "retry_runs", "cancel_runs", "clear", "delete_model"]
)
def test_who_may_only_look_posts_no_action(
    action: str, step: Place, run: Run, person: Callable[..., Client], no_broker_is_asked: list[Run]
):
    """An action that is not offered is not performed, however it is asked for."""
    client = person("view_cachedstep", "view_run")
    for name, pk in ((LIST, step.id), ("run_changelist", str(run.pk))):
        for more in ({}, {"select_across": "1"}, {"index": "1"}, {"index": "x"}):
            client.post(page(name), {"action": action, "_selected_action": pk, "post": "yes", **more})
    _nothing_happened(run, no_broker_is_asked)


def test_every_form_needs_a_csrf_token(
    step: Place, run: Run, person: Callable[..., Client], no_broker_is_asked: list[Run]
):
    """A form on another site does nothing, at any address, in a superuser's browser either."""
    client = person(is_superuser=True)
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies
    for address in addresses(step, run):
        data = {**EVERYTHING, "action": "delete_selected", "_selected_action": step.id}
        assert strict.post(address, data).status_code == 403, address
    _nothing_happened(run, no_broker_is_asked)


def test_nothing_is_done_by_a_link(step: Place, run: Run, person: Callable[..., Client], no_broker_is_asked: list[Run]):
    """GET only shows, at every address."""
    client = person(is_superuser=True)
    for address in addresses(step, run):
        client.get(address, {**EVERYTHING, "action": "delete_selected", "_selected_action": step.id})
    _nothing_happened(run, no_broker_is_asked)


# Ids


def _id(*parts: str) -> str:
    return base64.urlsafe_b64encode("\0".join(parts).encode("utf-8", "surrogatepass")).decode().rstrip("=")


def _ask(client: Client, pk: str) -> list[Any]:
    return [
        client.get(page("cachedstep_change", pk)),
        client.post(page("cachedstep_delete", pk), {"post": "yes"}),
        client.post(page(LIST), {"action": "delete_selected", "post": "yes", "_selected_action": pk}),
        client.get(page("cachedstep_history", pk)),
    ]


def test_an_id_leads_to_no_other_cache(alias: str, person: Callable[..., Client]):
    """Only caches with steps are asked, whichever alias an id names."""
    put("default", "checkout", "order:7", Ok(SECRET))
    for answer in _ask(person(is_superuser=True), _id("default", "checkout", "order:7")):
        assert SECRET not in answer.content.decode()
    assert keys("default", "checkout") == ["order:7"]


@pytest.fixture
def server(valkey: Valkey, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Valkey:
    """A cache with a step, its lease and its index, and with what other apps keep there."""
    settings.STEPFLOWS = {"CACHE": "django_redis"}
    monkeypatch.setattr(registry, "_workflows", {})
    put("django_redis", "checkout", "order:7")
    cache = caches["django_redis"]
    for key in ("session:1", "stepflows", "stepflows:", "order:7", lease_key(Name("checkout", "order:8"))):
        valkey.client.set(cache.make_key(key), SECRET)
    valkey.client.set("session:2", SECRET)
    return valkey


def all_keys(server: Valkey) -> set[bytes]:
    return set(server.client.keys())


PLACES = [
    ("%.lease", lease_key(Name("checkout", "order:8")).rpartition(":")[2]),
    *(("%.lease", ""), ("%", ".index"), ("%.index", ""), ("", ""), ("..", "session:1"), ("checkout", "*")),
    *(
        ("checkout:order", "7"),
        ("*", "*"),
        ("checkout", "order:7\r\nFLUSHALL"),
        ("checkout\0order:7", ""),
        ("\0", "\0"),
    ),
    *(("../../session", "1"), ("checkout", "\ud800"), ("checkout@", "order:7"), ("%63heckout", "order:7")),
    *((":1:session", "1"), ("x" * 10_000, "y" * 10_000), ("checkout", "order:7 ")),
]


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
def test_an_id_leads_to_nothing_but_steps(place: tuple[str, str], server: Valkey, person: Callable[..., Client]):
    """No lease, no index and nothing of another app is read or deleted, whatever an id says."""
    before = all_keys(server)
    for answer in _ask(person(is_superuser=True), _id("django_redis", *place)):
        assert answer.status_code in (200, 302)
        assert SECRET not in answer.content.decode()
    assert all_keys(server) == before


@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(), st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode())))
def test_any_id_is_a_step_or_none(text: str):
    """An id is taken apart or refused, whatever it is, and one that is taken apart is the only one of its place."""
    place = Place.of(text)
    assert place is None or Place.of(place.id) == place


def test_an_id_of_a_run_is_that_or_none(run: Run, person: Callable[..., Client], no_broker_is_asked: list[Run]):
    """What is no id of a run is answered as one that is gone."""
    client = person(is_superuser=True)
    for pk in ("1", "x' OR 1=1 --", "..", "%", "_", str(UUID(int=0)), "a" * 5000):
        for name in ("change", "resume", "retry", "cancel", "again", "live", "history"):
            ask = client.get if name in ("change", "live", "history") else client.post
            assert ask(page(f"run_{name}", pk)).status_code in (302, 404)
    run.refresh_from_db()
    assert (run.state, no_broker_is_asked) == ("failed", [])


# Clearing


@pytest.mark.parametrize(
    "data",
    [
        {"cache": "default", "scope": "all"},
        {"cache": "", "scope": "all"},
        {"scope": "all"},
        {"cache": "locmem"},
        {"cache": "locmem", "scope": ""},
        {"cache": "locmem", "scope": "workflow:"},
        {"cache": "locmem", "scope": "workflow:%"},
        {"cache": "locmem", "scope": "workflow:*"},
        {"cache": "locmem", "scope": "checkout"},
        {"cache": "locmem", "scope": "workflow:checkout@"},
        {"cache": "locmem", "scope": "all", "key_prefix": "*"},
        {"cache": "locmem", "scope": "all", "key_prefix": "order:[7]"},
        {"cache": "locmem", "scope": "all", "key_prefix": "order:7\0"},
        {"cache": "locmem", "scope": "all", "key_prefix": " "},
        {"clearing": "1"},
        {"clearing": "x"},
    ],
    ids=str,
)
def test_a_crafted_clear_form_clears_nothing(data: dict[str, str], step: Place, person: Callable[..., Client]):
    """Caches and workflows are those that there are, a prefix is no pattern, and nothing goes on that was not begun."""
    put("default", "checkout", "order:7")
    client = person("clear_cachedstep")
    assert client.post(page(CLEAR), data).status_code in (200, 302)
    assert keys("locmem", "checkout") == keys("default", "checkout") == ["order:7"]


def test_nobody_goes_on_with_a_clear_of_somebody_else(
    step: Place, django_user_model: Any, person: Callable[..., Client]
):
    """How far a clear is, and what it clears, is in the session of whoever has begun it."""
    client = person("clear_cachedstep")
    session = client.session
    kept = {"aliases": ["locmem"], "workflow": None, "prefix": "", "total": 1, "removed": 0}
    session["stepflows_clearing"] = {"1": kept}
    session.save()
    other = Client()
    other.force_login(django_user_model.objects.create_superuser("other"))
    assert other.post(page(CLEAR), {"clearing": "1"}).status_code == 302
    assert keys("locmem", "checkout") == ["order:7"]


# Pages


NAN, INF = float("nan"), float("inf")
SHOWN = {
    "markup as a value": entry(packed(MARKUP), place=("checkout", "order:7")),
    "markup as a label": entry(packed(1), stamp=(MARKUP, 0.0, 0.0, MARKUP, None), place=("checkout", "order:7")),
    "no numbers": entry(packed(1), stamp=("x", NAN, NAN, "", NAN), place=("checkout", "order:7")),
    "no end": entry(packed(1), stamp=("x", INF, INF, "", INF), place=("checkout", "order:7")),
    "the last second": entry(
        packed(1), stamp=("x", 253402300799, -1e300, "", 253402300799), place=("checkout", "order:7")
    ),
    "the first second": entry(packed(1), stamp=("x", -62135596800, 2**63, "", 9e300), place=("checkout", "order:7")),
    "controls": entry(
        packed("\x1b[2J\0\r\n\u202e"), stamp=("\x1b\0\r\n\ud800", 0, 0, "\0", None), place=("checkout", "order:7")
    ),
    "bytes": b"\xc1sf\n" + bytes(100),
    "nothing": b"",
}
ERRORS = {
    "markup": exception("builtins:ValueError", MARKUP, message=MARKUP),
    "markup for a class": exception(MARKUP, MARKUP, message=MARKUP),
    "no name": exception("stepflows.errors:ClassNotLoaded"),
    "a number for a name": exception("stepflows.errors:ClassNotLoaded", state={"name": 5, "reason": 5}),
    "no message": exception("stepflows.errors:CachedStepError"),
    "a number for a message": exception("stepflows.errors:CachedStepError", state={"name": 5, "message": 5}),
    "a failure without its step": exception("stepflows.errors:StepFailed"),
    "no value": exception("stepflows.errors:NotCacheable"),
    "an error of Django's without its parts": exception("django.core.exceptions:ValidationError"),
    "a member": member(MARKUP, MARKUP),
    "a record": record(MARKUP, MARKUP, {MARKUP: MARKUP}),
}


@pytest.mark.parametrize("name", [*SHOWN, *ERRORS])
def test_no_entry_breaks_a_page_or_gets_markup_into_it(name: str, alias: str, person: Callable[..., Client]):
    """The list, the page of the step and the one that deletes show whatever lies there, as text."""
    data = SHOWN.get(name)
    if data is None:
        data = entry(packed([ERRORS[name]]), ok=False, place=("checkout", "order:7"))
    plant(alias, data, key="order:7")
    assert stored(alias, key="order:7") == data
    client = person(is_superuser=True)
    step = Place(alias, Name("checkout", "order:7"))
    for address in (
        page(LIST),
        step_page("change", step),
        step_page("delete", step),
        page(CLEAR),
        page(LIST) + "?q=order",
    ):
        html = client.get(address).content.decode()
        assert "<img" not in re.sub(r'<img src="/static/[\w/.-]+"', "", html)
        assert "alert('x')" not in html


@pytest.mark.parametrize("key", ["a\0b", "a\ud800b", "\x1b[2J", "x" * 5000, MARKUP], ids=range(5))
def test_a_step_of_any_name_is_deleted_and_logged(key: str, alias: str, person: Callable[..., Client]):
    """What somebody puts there under a name that no step has can be removed, one by one and all at once."""
    client = person(is_superuser=True)
    for workflow_name in ("checkout", f"{key}!"):
        step = put(alias, workflow_name, key)
        assert client.post(step_page("delete", step), {"post": "yes"}).status_code == 302
        put(alias, workflow_name, key)
        data = {"cache": alias, "scope": f"workflow:{printable(workflow_name)}"}
        assert client.post(page(CLEAR), data).status_code == 302
        assert backend_for(alias).count() == 0
    assert LogEntry.objects.count() == 4


def test_arguments_and_steps_of_runs_are_shown_as_text(person: Callable[..., Client], alias: str):
    """Whatever a run was given, did and came to: no markup of it is in the pages."""
    steps = [a_step(label=MARKUP, key=MARKUP), a_step(MARKUP, label="x")]
    history = [{"worker": MARKUP, "reason": MARKUP, "steps": steps, "started_at": MARKUP, "ended_at": MARKUP}]
    row = a_run(
        MARKUP, kwargs={"x": MARKUP}, summary=MARKUP, state="failed", worker=MARKUP, queue=MARKUP, steps=steps,
        history=history, failed_step=[MARKUP, MARKUP, True],
    )  # fmt: skip
    client = person(is_superuser=True)
    for address in (page("run_changelist"), page("run_change", row.pk), page("run_live", row.pk), page(LIST)):
        html = client.get(address).content.decode()
        assert "<img src=x" not in html
        assert "<script>alert" not in html


ELSEWHERE = [
    "https://evil.example/",
    "//evil.example/",
    "\\\\evil.example",
    "javascript:alert(1)",
    "_changelist_filters",
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_nobody_is_led_to_another_site(
    target: str, step: Place, run: Run, person: Callable[..., Client], no_broker_is_asked: list[Run]
):
    """After whatever was done, one comes back to the admin, whatever the address or the form names to go to."""
    client = person(is_superuser=True)
    query = dict.fromkeys(("_changelist_filters", "next", "redirect"), target)
    done = {**EVERYTHING, **query}
    del done["clearing"]
    answers = [
        client.post(step_page("delete", step), done, query_params=query),
        client.get(page("cachedstep_change", "gone"), query),
        client.post(page(CLEAR), done, query_params=query),
        client.post(page("run_resume", run.pk), done, query_params=query),
        client.post(page("run_cancel", run.pk), done, query_params=query),
        client.post(page(LIST), {**done, "action": "delete_selected", "_selected_action": step.id}, query_params=query),
        client.post(page("run_again", run.pk), done, query_params=query),
    ]
    for answer in answers:
        assert answer.status_code == 302
        assert re.match(r"/admin/(stepflows/|$)", answer.url), answer.url
