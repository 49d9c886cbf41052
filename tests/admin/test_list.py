"""The list of cached steps: columns, filters, search and pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

import pytest
from django.core.cache import caches
from django.test import Client
from pytest_django.fixtures import Settings
from redis.connection import AbstractConnection

from stepflows import CacheUnavailable, Err, Ok, StepCache, workflow
from stepflows.cachedsteps import Place, heads, rebuild
from stepflows.caches import codec
from stepflows.caches.locmem import LocMemBackend
from stepflows.caches.names import backend_key, reserved_key
from stepflows.registry import registry
from stepflows.results import Stamp, stamped
from tests.entries import DONE, put, put_many, spoil
from tests.pages import CLEAR, LIST, messages_of, page, rows, step_page, text_of
from tests.servers import CommandStats, Valkey

pytestmark = pytest.mark.django_db

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert('x')>",
    "it's {{ 7|add:'7' }} %s {0} &amp;",
    "\u202eشىء من اليمين",
    "鍵" * 200,
    "x" * 200,
    "a/b?c=d&e#f_:%2F",
]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is sent to a server, each time before its answer is waited for; many commands at once are one of these.

    The server cannot tell: what is more than a few kilobytes it may read in several pieces.
    """
    found: list[Any] = []
    send = AbstractConnection.send_packed_command

    def note(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(command)
        return send(self, command, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", note)
    return found


@pytest.fixture
def only(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make an alias the only one with steps."""

    def make(alias: str) -> None:
        settings.STEPFLOWS = {"CACHE": alias}
        monkeypatch.setattr(registry, "_workflows", {})

    return make


@pytest.fixture
def other(settings: Settings, alias: str) -> str:
    """A second cache with steps, that of a registered workflow."""
    other = "file" if alias == "locmem" else "locmem"
    StepCache(other).backend.remove(list(StepCache(other).backend.names()))
    workflow("elsewhere", cache=other)(lambda step, deps: None)
    return other


def test_each_step_has_a_row_with_what_its_first_bytes_say(boss: Client, alias: str):
    """Workflow, key, label, outcome, age, end, size and duration, in order of workflow and key."""
    error = put(
        alias, "signup", "user:2", Err(ValueError("no")), label="fetch", ago=7200, ttl=3 * 86400 + 7300, duration=75
    )
    put(alias, "checkout", "b", Ok("x" * 3000), label="load", ago=90, duration=1.234)
    put(alias, "checkout", "a", Ok(None), label="charge", version=2)
    size = heads([error])[0].size
    assert rows(boss.get(page(LIST))) == [
        ["checkout", "b", "load", "ok", "1 minute ago", "never", "2.9 KB", "1.2 s"],
        ["checkout version 2", "a", "charge", "ok", "just now", "never", "1 byte", "250 ms"],
        ["signup", "user:2", "fetch", "error", "2 hours ago", "in 3 days", f"{size} bytes", "1 min 15 s"],
    ]


def test_every_backend_is_listed_and_cleared(
    boss: Client, cache_alias: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    """Whatever a project has."""
    settings.STEPFLOWS = {"CACHE": cache_alias}
    monkeypatch.setattr(registry, "_workflows", {})
    put(cache_alias, "checkout", "user:1", label="鍵" * 200)
    put(cache_alias, "checkout", "鍵" * 200, Err("no"))
    put(cache_alias, "signup", "user:1")
    assert [row[1:4] for row in rows(boss.get(page(LIST), {"workflow": "checkout"}))] == [
        ["user:1", "鍵" * 200, "ok"],
        ["鍵" * 200, "step", "error"],
    ]
    boss.post(page(CLEAR), {"cache": cache_alias, "scope": "workflow:checkout"})
    assert [row[0] for row in rows(boss.get(page(LIST)))] == ["signup"]


def test_no_value_is_decoded_on_the_list(boss: Client, alias: str, monkeypatch: pytest.MonkeyPatch):
    """However large they are."""
    put(alias, "checkout", "user:1", Ok("x" * 100_000))
    monkeypatch.setattr(codec.Codec, "decode", None)
    assert len(rows(boss.get(page(LIST)))) == 1


def test_the_exact_time_shows_on_hover(boss: Client, locmem: str, settings: Settings):
    """In the site's own zone."""
    settings.TIME_ZONE = "Asia/Tokyo"
    put(locmem, "checkout", "user:1", ago=0)
    StepCache(locmem, namespace="checkout")
    html = boss.get(page(LIST)).content.decode()
    assert "+00:00" in html
    assert 'title="' in html


@pytest.mark.parametrize("use_tz", [True, False])
def test_it_works_with_and_without_time_zones(boss: Client, locmem: str, settings: Settings, use_tz: bool):
    """Ages are right either way."""
    settings.USE_TZ = use_tz
    settings.TIME_ZONE = "America/New_York"
    put(locmem, "checkout", "user:1", ago=3 * 3600 + 10, ttl=6 * 3600 + 20)
    assert rows(boss.get(page(LIST)))[0][4:6] == ["3 hours ago", "in 3 hours"]


def test_an_expired_step_is_not_listed(boss: Client, alias: str):
    """What counts as missing is not there, even if the server keeps it a little longer."""
    place = put(alias, "checkout", "user:1", ttl=3600)
    assert len(rows(boss.get(page(LIST)))) == 1
    past = stamped(DONE, Stamp(expires_at=time.time() - 1))
    spoil(place, codec.current_codec().encode(past, *place.name))
    assert rows(boss.get(page(LIST))) == []
    assert boss.get(step_page("change", place)).status_code == 302


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_that_people_write_breaks_the_page(boss: Client, alias: str, hostile: str):
    """A key, a label and a workflow's name are text and nothing else, and the link leads to the step."""
    put(alias, hostile, hostile, label=hostile)
    response = boss.get(page(LIST))
    assert rows(response)[0][:3] == [hostile, hostile, hostile]
    assert hostile not in response.content.decode() or not set("<>&\"'") & set(hostile)
    step = response.context["cl"].result_list[0]
    detail = boss.get(response.context["cl"].url_for_result(step))
    assert detail.status_code == 200
    assert text_of(detail).count(hostile) >= 4


def test_a_namespace_that_no_page_can_show_is_shown_as_well_as_can_be(boss: Client, locmem: str):
    """A lone surrogate is no UTF-8."""
    put(locmem, "a\ud800b", "user:1")
    assert rows(boss.get(page(LIST), {"workflow": "a?b"}))[0][0] == "a?b"


def test_steps_without_a_namespace_can_be_told_apart(boss: Client, locmem: str):
    """``StepCache()`` on its own has none."""
    put(locmem, "", "user:1")
    put(locmem, "checkout", "user:1")
    response = boss.get(page(LIST), {"workflow": ""})
    assert [row[:2] for row in rows(response)] == [["-", "user:1"]]
    assert "(no name)" in text_of(response)
    assert "scope=workflow%3A" in response.context["cl"].clear_url


def test_the_filter_shows_one_workflow_in_all_its_versions(boss: Client, alias: str):
    """Only workflows that have steps are offered."""
    put(alias, "checkout", "a")
    put(alias, "checkout", "b", version=2)
    put(alias, "checkout2", "c")
    response = boss.get(page(LIST), {"workflow": "checkout"})
    assert [row[1] for row in rows(response)] == ["a", "b"]
    assert "By workflow All checkout checkout2" in text_of(response)
    assert rows(boss.get(page(LIST), {"workflow": "signup"})) == []


def test_the_search_finds_keys_that_begin_so_and_says_so(boss: Client, alias: str):
    """And not those that contain it; special characters mean themselves."""
    put_many(alias, "checkout", ["user:1", "user:12", "xuser:1", "user*", "USER:1"])
    put(alias, "signup", "user:1")
    response = boss.get(page(LIST), {"q": "user:"})
    assert [row[:2] for row in rows(response)] == [
        ["checkout", "user:1"],
        ["checkout", "user:12"],
        ["signup", "user:1"],
    ]
    assert "3 results ( 6 total )" in text_of(response)
    assert "Finds keys that begin with this, such as “user:”." in text_of(response)
    assert [row[1] for row in rows(boss.get(page(LIST), {"q": "user*"}))] == ["user*"]
    assert [row[1] for row in rows(boss.get(page(LIST), {"q": " xu"}))] == ["xuser:1"]


def test_search_and_filter_go_together(boss: Client, alias: str):
    """Each narrows the other."""
    put_many(alias, "checkout", ["user:1", "order:1"])
    put(alias, "checkout", "user:2", version=1)
    put(alias, "signup", "user:1")
    response = boss.get(page(LIST), {"q": "user:", "workflow": "checkout"})
    assert [row[:2] for row in rows(response)] == [["checkout", "user:1"], ["checkout version 1", "user:2"]]


def test_pages_hold_a_hundred_and_together_everything_once(boss: Client, alias: str):
    """Across workflows and versions, with the total count."""
    expected: list[Place] = []
    for workflow_, version, count in (("a", None, 30), ("a", 1, 90), ("a", 2, 1), ("b", None, 120)):
        expected += [put(alias, workflow_, f"k{number:03}", version=version) for number in range(count)]
    listed = []
    for number, size in ((1, 100), (2, 100), (3, 41)):
        response = boss.get(page(LIST), {"p": number})
        assert len(rows(response)) == size
        assert "241 cached steps" in text_of(response)
        listed += [step.pk for step in response.context["cl"].result_list]
    assert listed == [place.id for place in expected]
    filtered = [boss.get(page(LIST), {"p": number, "workflow": "a"}).context["cl"].result_list for number in (1, 2)]
    assert [step.pk for steps in filtered for step in steps] == [place.id for place in expected[:121]]


#: Pages of the list: the first, one in the middle, one workflow, one prefix, and both.
QUERIES: list[dict[str, str]] = [
    {},
    {"p": "12"},
    {"workflow": "checkout"},
    {"q": "user:0"},
    {"workflow": "checkout", "q": "user:0", "p": "2"},
]


def test_a_page_asks_the_server_twice(boss: Client, redis_alias: str, only: Callable[[str], None], sent: list[Any]):
    """With the total count, the filter and all: first for names, then for their heads. However many keys there are."""
    only(redis_alias)
    for some in (range(1500), range(1500, 3000)):
        put_many(redis_alias, "checkout", [f"user:{key:05}" for key in some])
        put_many(redis_alias, "signup", [f"user:{key:05}" for key in some])
        for query in QUERIES:
            # Scripts are loaded and connections made.
            boss.get(page(LIST), query)
            sent.clear()
            assert len(rows(boss.get(page(LIST), query))) == 100
            assert len(sent) == 2, query


def test_the_server_does_as_much_for_every_page(
    boss: Client,
    redis_alias: str,
    only: Callable[[str], None],
    commandstats: Callable[[], AbstractContextManager[CommandStats]],
):
    """The same number of commands, among 3,000 keys and among 6,000; and of each entry the first bytes are read."""
    only(redis_alias)
    asked: list[CommandStats] = []
    for some in (range(1500), range(1500, 3000)):
        put_many(redis_alias, "checkout", [f"user:{key:05}" for key in some])
        put_many(redis_alias, "signup", [f"user:{key:05}" for key in some])
        for query in QUERIES:
            boss.get(page(LIST), query)
            with commandstats() as stats:
                boss.get(page(LIST), query)
            asked.append(stats)
    assert asked[:5] == asked[5:]
    assert all(stats["getrange"] == 100 and sum(stats.values()) < 130 for stats in asked), asked


def test_an_empty_list_asks_the_server_once(
    boss: Client, redis_alias: str, only: Callable[[str], None], sent: list[Any]
):
    """There is nothing to read."""
    only(redis_alias)
    boss.get(page(LIST))
    sent.clear()
    boss.get(page(LIST))
    assert len(sent) == 1


def test_what_fits_on_one_page_is_shown_whichever_page_is_asked_for(boss: Client, alias: str):
    """As in any list of the admin."""
    put_many(alias, "checkout", ["a", "b"])
    for query in ({"p": "3"}, {"all": ""}, {"p": "3", "all": ""}, {"p": "-1"}):
        assert [row[1] for row in rows(boss.get(page(LIST), query))] == ["a", "b"]


def test_steps_that_the_server_evicted_leave_no_gap(boss: Client, valkey: Valkey, locmem: str, settings: Settings):
    """Neither in the page nor in the numbers."""
    settings.STEPFLOWS = {"CACHE": "redis"}
    places = put_many("redis", "checkout", [f"user:{number:04}" for number in range(1300)])
    make_key = caches["redis"].make_key
    valkey.client.delete(*[make_key(backend_key(place.name)) for place in places[50:1150]])
    response = boss.get(page(LIST))
    assert [row[1] for row in rows(response)] == [place.name.key for place in (*places[:50], *places[1150:1200])]
    assert "200 cached steps" in text_of(response)


def test_a_page_that_is_not_there_leads_back_to_the_first(boss: Client, locmem: str):
    """As in any list of the admin."""
    put_many(locmem, "checkout", [f"user:{number}" for number in range(101)])
    assert boss.get(page(LIST), {"p": 3}).url == f"{page(LIST)}?e=1"
    assert boss.get(page(LIST), {"p": "x"}).status_code == 200


@pytest.mark.parametrize("query", [{"colour": "red"}, {"cache": "nowhere"}])
def test_a_filter_that_is_none_leads_back_to_the_whole_list(boss: Client, alias: str, other: str, query: Any):
    """Rather than to a list that only seems to be filtered."""
    assert boss.get(page(LIST), query).url == f"{page(LIST)}?e=1"


def test_columns_cannot_be_sorted(boss: Client, locmem: str):
    """That would read every entry."""
    put(locmem, "checkout", "user:1")
    html = boss.get(page(LIST), {"o": "2"}).content.decode()
    assert 'class="sortable' not in html


def test_an_empty_cache_is_an_empty_list(boss: Client, alias: str):
    """Without filters and actions."""
    assert "0 cached steps" in text_of(boss.get(page(LIST)))


# --- several caches


def test_steps_of_several_caches_are_listed_together(boss: Client, alias: str, other: str):
    """With a column for the cache and a filter; pages go on from one to the next."""
    first = put_many(alias, "checkout", [f"a{number:03}" for number in range(101)])
    second = put_many(other, "signup", ["b1", "b2"])
    response = boss.get(page(LIST), {"p": 2})
    assert [step.pk for step in response.context["cl"].result_list] == [place.id for place in (first[-1], *second)]
    assert [row[-1] for row in rows(response)] == [alias, other, other]
    assert f"By cache All {alias} {other}" in text_of(response)


def test_the_cache_filter_shows_one_of_them(boss: Client, alias: str, other: str):
    """With the workflows of that cache."""
    put(alias, "checkout", "a")
    put(other, "signup", "b")
    response = boss.get(page(LIST), {"cache": other})
    assert [row[1] for row in rows(response)] == ["b"]
    assert "By workflow All signup By cache" in text_of(response)


def test_a_single_cache_needs_neither_column_nor_filter(boss: Client, alias: str):
    """There is nothing to choose."""
    put(alias, "checkout", "a")
    response = boss.get(page(LIST))
    assert len(rows(response)[0]) == 8
    assert "By cache" not in text_of(response)


def test_workflows_with_other_maps_and_cache_objects_are_no_caches_to_list(boss: Client, alias: str):
    """A dict, and a cache object that is no alias, belong to their processes."""
    from django.core.cache.backends.locmem import LocMemCache

    workflow("dict", cache={})(lambda step, deps: None)
    workflow("object", cache=LocMemCache("own", {}))(lambda step, deps: None)
    workflow("settings")(lambda step, deps: None)
    response = boss.get(page(LIST))
    assert response.status_code == 200
    assert "By cache" not in text_of(response)


# --- caches that cannot


@pytest.fixture
def unlistable(settings: Settings) -> str:
    """An alias whose backend cannot say what it holds: Django's own methods were overridden."""
    settings.CACHES = {
        **settings.CACHES,
        "opaque": {"BACKEND": "tests.admin.opaque.OpaqueCache", "LOCATION": "opaque"},
    }
    return "opaque"


def test_a_cache_that_cannot_list_is_explained(boss: Client, locmem: str, settings: Settings, unlistable: str):
    """With what can be done instead, and no error."""
    settings.STEPFLOWS = {"CACHE": unlistable}
    response = boss.get(page(LIST))
    assert response.status_code == 200
    assert "This cache cannot be listed" in text_of(response)
    assert "clear_step_cache KEY --workflow NAME" in text_of(response)
    assert boss.get(page(CLEAR)).status_code == 200


def test_beside_a_cache_that_lists_one_that_cannot_is_named(boss: Client, locmem: str, unlistable: str):
    """The steps of the other are there."""
    put(locmem, "checkout", "a")
    workflow("elsewhere", cache=unlistable)(lambda step, deps: None)
    response = boss.get(page(LIST))
    assert [row[1] for row in rows(response)] == ["a"]
    assert "Not listed here: opaque." in text_of(response)


def test_an_alias_that_is_not_in_caches_is_explained(boss: Client, locmem: str, settings: Settings):
    """A typing mistake in the settings is no server error."""
    settings.STEPFLOWS = {"CACHE": "nowhere"}
    response = boss.get(page(LIST))
    assert response.status_code == 503
    assert "There is no cache alias 'nowhere'" in text_of(response)


@pytest.fixture
def down(settings: Settings, locmem: str) -> str:
    """A cache whose server does not answer."""
    settings.CACHES = {
        **settings.CACHES,
        "down": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"},
    }
    settings.STEPFLOWS = {"CACHE": "down"}
    return "down"


def test_a_cache_that_is_down_is_explained_on_every_page(boss: Client, down: str):
    """503, with the admin around it."""
    step = put("locmem", "checkout", "a")._replace(alias=down)
    for url in (page(LIST), page(CLEAR), *(step_page(name, step) for name in ("change", "delete", "history"))):
        response = boss.get(url)
        assert response.status_code == 503
        assert "The cache cannot be used" in text_of(response)
        assert "cache alias 'down'" in text_of(response)
        assert "Django administration" in response.content.decode()


def test_when_one_of_several_is_down_the_others_are_a_click_away(boss: Client, down: str):
    """The page links to each alone, and their lists do not ask the one that is down."""
    put("locmem", "checkout", "a")
    workflow("elsewhere", cache="locmem")(lambda step, deps: None)
    response = boss.get(page(LIST))
    assert response.status_code == 503
    assert f'href="{page(LIST)}?cache=locmem"' in response.content.decode()
    listed = boss.get(page(LIST), {"cache": "locmem"})
    assert [row[1] for row in rows(listed)] == ["a"]
    assert boss.get(page(CLEAR), {"cache": "locmem", "scope": "all"}).status_code == 200


def test_a_cache_that_goes_away_while_the_page_is_written_is_explained(
    boss: Client, locmem: str, monkeypatch: pytest.MonkeyPatch
):
    """Everything is read before the page begins."""
    put(locmem, "checkout", "a")

    def gone(self: Any, *args: Any) -> Any:
        raise CacheUnavailable("gone away")

    monkeypatch.setattr(LocMemBackend, "heads", gone)
    response = boss.get(page(LIST))
    assert (response.status_code, "gone away" in text_of(response)) == (503, True)


def test_a_lost_index_is_told_with_what_to_do(boss: Client, valkey: Valkey, locmem: str, settings: Settings):
    """Which needs no further question; the page is whole again afterwards."""
    settings.STEPFLOWS = {"CACHE": "redis"}
    put("redis", "checkout", "a")
    assert "lost" not in text_of(boss.get(page(LIST)))
    valkey.client.delete(caches["redis"].make_key(reserved_key("index")))
    assert (
        "The cache “redis” has lost its list of the steps that it holds, so some may be missing here, though they are "
        "used as before. To look through the whole cache and list them anew: "
        "manage.py list_step_cache --cache redis --rebuild"
    ) in text_of(boss.get(page(LIST)))
    rebuild("redis")
    response = boss.get(page(LIST))
    assert ("lost" in text_of(response), [row[1] for row in rows(response)]) == (False, ["a"])


# --- damage


def test_a_damaged_entry_is_listed_as_such(boss: Client, valkey: Any, locmem: str, settings: Settings):
    """Where the index knows of it; it can be opened and deleted."""
    settings.STEPFLOWS = {"CACHE": "redis"}
    place = put("redis", "checkout", "user:1")
    spoil(place, b"rubbish")
    assert rows(boss.get(page(LIST))) == [["checkout", "user:1", "-", "damaged", "-", "-", "-", "-"]]


def test_an_entry_with_impossible_times_is_listed_without_them(boss: Client, alias: str):
    """A date in the year 300,000 is no date."""
    put(alias, "checkout", "user:1", ago=-1e13)
    assert rows(boss.get(page(LIST)))[0][3:6] == ["ok", "-", "never"]


def test_an_entry_that_vanishes_between_count_and_page_is_left_out(
    boss: Client, alias: str, monkeypatch: pytest.MonkeyPatch
):
    """Entries expire and are evicted at any time."""
    put_many(alias, "checkout", ["a", "b"])
    backend = type(StepCache(alias).backend)
    survey = backend.survey

    def surveyed(self: Any, *args: Any) -> Any:
        found = survey(self, *args)
        return found._replace(heads=[None, *found.heads[1:]])

    monkeypatch.setattr(backend, "survey", surveyed)
    assert [row[1] for row in rows(boss.get(page(LIST)))] == ["b"]


def test_a_link_quotes_whatever_is_in_it(boss: Client, locmem: str):
    """The filter's links and the button lead to where they say."""
    name = "a&b=c#d?e/f 'g\""
    put(locmem, name, "user:1")
    response = boss.get(page(LIST), {"workflow": name})
    assert quote(name, safe="") in response.context["cl"].clear_url.replace("+", "%20")
    assert "user:1" in text_of(response)
    confirmation = boss.get(response.context["cl"].clear_url)
    assert f"Workflow {name} , all its versions" in text_of(confirmation)
    assert messages_of(confirmation) == []
