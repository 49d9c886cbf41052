"""The Clear… page."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.core.cache import caches
from django.test import Client

from stepflows import CacheUnavailable, StepCache, cachedsteps, workflow
from stepflows.admin import CachedStepAdmin
from tests.entries import keys, put, put_many
from tests.pages import CLEAR, LIST, messages_of, page, rows, text_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def steps(alias: str) -> str:
    """Two workflows, one of them in two versions, and something else in the same cache."""
    put_many(alias, "checkout", ["user:1", "user:2", "order:1"])
    put(alias, "checkout", "user:1", version=2)
    put_many(alias, "signup", ["user:1", "order:1"])
    caches[alias].set("user:1", "somebody's")
    return alias


def _scope(alias: str, scope: str, prefix: str = "") -> dict[str, str]:
    return {"cache": alias, "scope": scope, "key_prefix": prefix}


def _left(alias: str) -> dict[str, list[str]]:
    left = {"checkout": keys(alias, "checkout"), "2": keys(alias, "checkout", 2), "signup": keys(alias, "signup")}
    return {name: found for name, found in left.items() if found}


ALL = {"checkout": ["order:1", "user:1", "user:2"], "2": ["user:1"], "signup": ["order:1", "user:1"]}
#: What is chosen: how many steps that is, how it is told, and what is left.
SCOPES: dict[str, tuple[tuple[str, str], int, str, dict[str, list[str]]]] = {
    "workflow": (
        ("workflow:checkout", ""),
        4,
        "Workflow checkout , all its versions Keys all",
        {"signup": ["order:1", "user:1"]},
    ),
    "prefix": (
        ("all", "user:"),
        4,
        "Workflow All workflows Keys those that begin with “ user: ”",
        {"checkout": ["order:1"], "signup": ["order:1"]},
    ),
    "workflow and prefix": (
        ("workflow:checkout", "user:"),
        3,
        "Workflow checkout , all its versions Keys those that begin with “ user: ”",
        {"checkout": ["order:1"], "signup": ["order:1", "user:1"]},
    ),
    "everything": (("all", ""), 6, "Workflow All workflows Keys all", {}),
}


@pytest.mark.parametrize("name", SCOPES)
def test_the_confirmation_names_the_scope_and_the_exact_number(name: str, boss: Client, steps: str):
    """And removes nothing."""
    scope, count, told, _ = SCOPES[name]
    text = text_of(boss.get(page(CLEAR), _scope(steps, *scope)))
    assert f"Are you sure you want to remove {count} cached steps?" in text
    assert f"{told} Cache {steps}" in text
    assert "runs again when it is next asked for" in text
    assert _left(steps) == ALL


@pytest.mark.parametrize("name", SCOPES)
def test_a_post_clears_the_scope_and_nothing_else(name: str, boss: Client, steps: str):
    """The number is reported, and who did it is in the log."""
    scope, count, _, left = SCOPES[name]
    response = boss.post(page(CLEAR), _scope(steps, *scope), follow=True)
    assert response.redirect_chain == [(page(LIST), 302)]
    (message,) = messages_of(response)
    assert message.startswith(f"{count} cached steps were removed: ")
    assert _left(steps) == left
    assert caches[steps].get("user:1") == "somebody's"
    entry = LogEntry.objects.get()
    assert (entry.action_flag, entry.object_id, entry.user.username) == (DELETION, None, "nobody")
    assert entry.content_type is not None
    assert entry.content_type.model == "cachedstep"
    assert entry.object_repr.startswith(f"{count} cached steps (")
    assert f"cache “{steps}”" in entry.object_repr
    assert entry.get_admin_url() is None
    assert entry.object_repr in text_of(boss.get("/admin/"))


def test_clearing_asks_first_what(boss: Client, steps: str):
    """Nothing is chosen beforehand, and everything is the last thing offered."""
    html = boss.get(page(CLEAR)).content.decode()
    offered = html[html.index("<select") : html.index("</select>")]
    assert [offered.index(text) for text in ("---------", "checkout", "signup", "All workflows")] == sorted(
        offered.index(text) for text in ("---------", "checkout", "signup", "All workflows")
    )
    assert " selected" in offered.split("</option>")[0] or " selected" not in offered
    assert "Are you sure" not in html


def test_the_button_brings_along_what_is_listed(boss: Client, steps: str):
    """A filtered list leads straight to its confirmation, an unfiltered one to the choice."""
    url = boss.get(page(LIST), {"workflow": "checkout", "q": "user:"}).context["cl"].clear_url
    assert "Are you sure you want to remove 3 cached steps?" in text_of(boss.get(url))
    url = boss.get(page(LIST), {"q": "user:"}).context["cl"].clear_url
    response = boss.get(url)
    assert "Choose what to clear" in text_of(response)
    assert boss.get(page(LIST)).context["cl"].clear_url == f"{page(CLEAR)}?cache={steps}"
    assert 'name="key_prefix" value="user:"' in response.content.decode()


def test_another_choice_begins_with_the_last_one(boss: Client, steps: str):
    """Nothing has to be typed twice."""
    confirmation = boss.get(page(CLEAR), _scope(steps, "workflow:signup", "user:")).content.decode()
    query = confirmation.split('" class="button cancel-link"')[0].rsplit('href="', 1)[1].replace("&amp;", "&")
    html = boss.get(query).content.decode()
    assert "Choose what to clear" in html
    assert '<option value="workflow:signup" selected>' in html


@pytest.mark.parametrize(
    "wrong",
    [
        {"scope": "workflow:nobody"},
        {"scope": ""},
        {"scope": "checkout"},
        {"scope": "all", "cache": "nowhere"},
        {"scope": "all", "cache": "default"},
        {"scope": "all", "key_prefix": "a\0b"},
    ],
)
def test_a_wrong_choice_clears_nothing(wrong: dict[str, str], boss: Client, steps: str):
    """Whether it is asked or posted."""
    data = {"cache": steps, **wrong}
    for response in (boss.get(page(CLEAR), data), boss.post(page(CLEAR), data)):
        assert response.status_code == 200
        assert "errorlist" in response.content.decode()
        assert "Are you sure" not in response.content.decode()
    assert boss.post(page(CLEAR), {}).status_code == 200
    assert _left(steps) == ALL
    assert LogEntry.objects.count() == 0


def test_with_nothing_there_nothing_can_be_confirmed(boss: Client, alias: str):
    """The page says so."""
    response = boss.get(page(CLEAR), _scope(alias, "all"))
    assert "There is nothing to clear." in text_of(response)
    assert "Yes, remove" not in response.content.decode()


def test_one_step_is_told_in_the_singular(boss: Client, alias: str):
    """On the page and afterwards."""
    put(alias, "checkout", "user:1")
    assert "remove 1 cached step?" in text_of(boss.get(page(CLEAR), _scope(alias, "all")))
    response = boss.post(page(CLEAR), _scope(alias, "all"), follow=True)
    assert messages_of(response) == [f"1 cached step was removed: all workflows, cache “{alias}”."]


def test_large_numbers_can_be_read(boss: Client, locmem: str):
    """With the thousands set apart."""
    put_many(locmem, "checkout", [f"user:{number}" for number in range(1200)])
    assert "remove 1,200 cached steps?" in text_of(boss.get(page(CLEAR), _scope(locmem, "all")))
    response = boss.post(page(CLEAR), _scope(locmem, "all"), follow=True)
    assert messages_of(response)[0].startswith("1,200 cached steps were removed")
    assert rows(response) == []


def test_of_several_caches_one_is_cleared(boss: Client, alias: str):
    """It has to be chosen, and the workflows of the chosen one are offered."""
    other = "file" if alias == "locmem" else "locmem"
    caches[other].clear()
    workflow("elsewhere", cache=other)(lambda step, deps: None)
    put(alias, "checkout", "a")
    put(other, "signup", "a")
    choice = boss.get(page(CLEAR)).content.decode()
    assert f'<option value="{other}">' in choice
    assert "workflow:checkout" in choice
    assert "workflow:signup" in choice
    assert "workflow:checkout" not in boss.get(page(CLEAR), {"cache": other}).content.decode()
    listing = boss.get(page(LIST), {"workflow": "signup"})
    assert "Choose what to clear" in text_of(boss.get(listing.context["cl"].clear_url))
    boss.post(page(CLEAR), _scope(other, "all"))
    assert (keys(alias, "checkout"), keys(other, "signup")) == (["a"], [])


def test_who_may_only_clear_is_told_on_the_first_page(staff: Any, locmem: str):
    """The list is not theirs to see."""
    put(locmem, "checkout", "user:1")
    client = staff("clear_cachedstep")
    assert "cachedstep/?" not in client.get(page(CLEAR), _scope(locmem, "all")).content.decode().split("cancel-link")[0]
    assert client.post(page(CLEAR), _scope(locmem, "all")).url == "/admin/"
    assert keys(locmem, "checkout") == []


def test_a_clear_that_fails_half_way_is_in_the_log_with_what_it_removed(
    boss: Client, locmem: str, monkeypatch: pytest.MonkeyPatch
):
    """The page explains, and the log does not forget the first thousand."""
    put_many(locmem, "checkout", [f"user:{number:04}" for number in range(1001)])
    backend = type(StepCache(locmem).backend)
    remove = backend.remove

    def fail_at_last(self: Any, names: Any) -> int:
        if len(names) == 1:
            raise CacheUnavailable("gone away")
        return remove(self, names)

    monkeypatch.setattr(backend, "remove", fail_at_last)
    response = boss.post(page(CLEAR), _scope(locmem, "all"))
    assert response.status_code == 503
    assert "gone away" in text_of(response)
    assert messages_of(response) == ["1,000 cached steps were removed: all workflows, cache “locmem”."]
    assert LogEntry.objects.get().object_repr.startswith("1,000 cached steps")


# --- large ones


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request removes one batch, of two."""
    monkeypatch.setattr(CachedStepAdmin, "clear_seconds", 0.0)
    monkeypatch.setattr(cachedsteps, "_REMOVED_AT_ONCE", 2)


def _go_on(client: Client, response: Any) -> Any:
    return client.post(page(CLEAR), {"clearing": response.context["progress"].log})


def test_a_large_clear_goes_on_from_page_to_page(boss: Client, steps: str, slowly: None):
    """Each tells how far it is, and the log has one entry, which is right at any time."""
    response = boss.post(page(CLEAR), _scope(steps, "workflow:checkout"))
    assert "2 of 4 cached steps are removed." in text_of(response)
    assert '<progress class="stepflows-progress" aria-labelledby="stepflows-progress" max="4" value="2">' in (
        response.content.decode()
    )
    assert LogEntry.objects.get().object_repr.startswith("2 cached steps (workflow “checkout”")
    assert keys(steps, "signup") == ["order:1", "user:1"]
    put(steps, "checkout", "zzz")
    response = _go_on(boss, response)
    assert "4 of 4 cached steps are removed." in text_of(response)
    response = _go_on(boss, response)
    assert "5 of 5 cached steps are removed." in text_of(response)
    response = _go_on(boss, response)
    assert response.url == page(LIST)
    assert messages_of(boss.get(page(LIST)))[0].startswith("5 cached steps were removed: workflow “checkout”")
    assert LogEntry.objects.get().object_repr.startswith("5 cached steps (workflow “checkout”")
    assert _left(steps) == {"signup": ["order:1", "user:1"]}


def test_a_clear_that_is_left_keeps_the_rest(boss: Client, steps: str, slowly: None):
    """And another begins with a confirmed number and an entry of its own."""
    boss.post(page(CLEAR), _scope(steps, "all"))
    assert sum(map(len, _left(steps).values())) == 4
    response = boss.post(page(CLEAR), _scope(steps, "workflow:signup"))
    assert "2 of 2 cached steps are removed." in text_of(response)
    assert LogEntry.objects.count() == 2


def test_a_page_of_a_clear_that_is_over_removes_nothing(boss: Client, steps: str, slowly: None):
    """Whoever goes back to it has not agreed to remove what was stored since."""
    first = boss.post(page(CLEAR), _scope(steps, "workflow:signup"))
    _go_on(boss, first)
    put(steps, "signup", "user:9")
    for name in (str(first.context["progress"].log), "", "x", "999"):
        response = boss.post(page(CLEAR), {"clearing": name}, follow=True)
        assert "This clear has come to its end already." in messages_of(response)
    assert keys(steps, "signup") == ["user:9"]
    assert LogEntry.objects.count() == 1


def test_going_on_twice_with_one_page_counts_right(boss: Client, steps: str, slowly: None):
    """As when the page is loaded again."""
    first = boss.post(page(CLEAR), _scope(steps, "all"))
    _go_on(boss, first)
    assert "6 of 6 cached steps are removed." in text_of(_go_on(boss, first))
    assert LogEntry.objects.get().object_repr.startswith("6 cached steps")


def test_nobody_goes_on_with_somebody_elses_clear(boss: Client, staff: Any, steps: str, slowly: None):
    """Nor without the permission."""
    first = boss.post(page(CLEAR), _scope(steps, "all"))
    data = {"clearing": first.context["progress"].log}
    assert staff("view_cachedstep").post(page(CLEAR), data).status_code == 403
    assert "come to its end" in messages_of(staff("clear_cachedstep").post(page(CLEAR), data, follow=True))[0]
    assert sum(map(len, _left(steps).values())) == 4


def test_a_cache_that_fails_on_the_way_ends_the_clear(
    boss: Client, locmem: str, slowly: None, monkeypatch: pytest.MonkeyPatch
):
    """What was removed before is in the log and on the page."""
    put_many(locmem, "checkout", ["a", "b", "c", "d"])
    first = boss.post(page(CLEAR), _scope(locmem, "all"))

    def fail(self: Any, names: Any) -> int:
        raise CacheUnavailable("gone away")

    monkeypatch.setattr(type(StepCache(locmem).backend), "remove", fail)
    response = _go_on(boss, first)
    assert (response.status_code, messages_of(response)[0][:27]) == (503, "2 cached steps were removed")
    assert LogEntry.objects.get().object_repr.startswith("2 cached steps")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "\u202eشىء", "x" * 200, "'\"&"])
def test_the_page_of_progress_shows_hostile_names_as_text(boss: Client, alias: str, slowly: None, name: str):
    """It names the scope like the confirmation."""
    places = put_many(alias, name, [f"{name[:190]}{number}" for number in range(3)])
    response = boss.post(page(CLEAR), _scope(alias, f"workflow:{name}", places[0].name.key[:-1]))
    assert f"Workflow {name} , all its versions Keys those that begin with “ {name[:190]} ”" in text_of(response)
    assert "<script>alert" not in response.content.decode()


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "\u202eشىء", "x" * 200, "'\"&", "all", "workflow:all"])
def test_hostile_names_are_cleared_like_others(boss: Client, alias: str, name: str):
    """A workflow may even be named "all"."""
    put(alias, name, name)
    put(alias, "other", "user:1")
    response = boss.get(page(CLEAR), _scope(alias, f"workflow:{name}", name))
    assert f"Workflow {name} , all its versions" in text_of(response)
    assert "<script>alert" not in response.content.decode()
    boss.post(page(CLEAR), _scope(alias, f"workflow:{name}", name))
    assert (keys(alias, name), keys(alias, "other")) == ([], ["user:1"])
    assert len(LogEntry.objects.get().object_repr) <= 200


def test_steps_without_a_namespace_can_be_cleared_alone(boss: Client, alias: str):
    """No name is not all names."""
    put(alias, "", "user:1")
    put(alias, "checkout", "user:1")
    boss.post(page(CLEAR), _scope(alias, "workflow:"))
    assert (keys(alias, ""), keys(alias, "checkout")) == ([], ["user:1"])
