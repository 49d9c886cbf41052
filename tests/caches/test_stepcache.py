"""StepCache: the Map over each of Django's caches."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache as default_cache
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from stepflows import CannotList, Err, InvalidOption, InvalidStepKey, InvalidUse, NotCacheable, Ok, StepCache
from stepflows.caches.backend import Write
from stepflows.caches.django import backend_timeout
from stepflows.caches.names import Name
from stepflows.engine.cache import MISSING, Entry
from stepflows.results import Stamp

ODD = ["user:1", "*", "[a]", "50%", "a b", "ключ", "鍵" * 200, "k" * 200, "'; DROP", "a%_b", "\\", "{x}"]


@pytest.fixture
def steps(cache_alias):
    return StepCache(cache_alias, "checkout")


def store(steps, key, result, *, replace=False):
    """What stands once this has been stored."""
    [standing] = steps.store([Entry(key, result, replace)])
    return standing


def overwrite(steps, key, data):
    """Put these bytes in the place of an entry."""
    steps.backend.write([Write(Name(steps.scope, key), data, replace=True)])


class Voices:
    """The a-methods under the names of their sync twins."""

    def __init__(self, steps):
        self.steps = steps

    def __getattr__(self, name):
        return async_to_sync(getattr(self.steps, f"a{name}"))

    def __len__(self):
        return self.len()


@pytest.fixture(params=["sync", "async"])
def voice(request, steps):
    """The Map by its plain methods, then by those for async code."""
    return steps if request.param == "sync" else Voices(steps)


def test_get_gives_what_was_set(voice):
    """A result that was set is got, and what was not is None."""
    voice.set("user:1", Ok({"name": "Ada"}))
    voice.set("user:2", Err("NOT_FOUND"))

    assert voice.get("user:1") == Ok({"name": "Ada"})
    assert voice.get("user:2") == Err("NOT_FOUND")
    assert voice.get("user:3") is None


def test_set_replaces(voice):
    """Setting again puts the new result in the place of the old one."""
    voice.set("user:1", Ok(1))
    voice.set("user:1", Ok(2))

    assert voice.get("user:1") == Ok(2)


def test_a_stored_none_is_there(voice):
    """None as a value is not the absence of one."""
    voice.set("user:1", Ok(None))

    assert voice.get("user:1") == Ok(None)
    assert voice.has("user:1") is True


def test_has_and_delete(voice):
    """Deleting says whether there was something, and takes it away."""
    voice.set("user:1", Ok(1))

    assert voice.has("user:1") is True
    assert voice.delete("user:1") is True
    assert voice.delete("user:1") is False
    assert voice.has("user:1") is False


@pytest.mark.parametrize("ttl", [0.05, timedelta(milliseconds=50)], ids=["seconds", "timedelta"])
def test_a_ttl_ends(voice, ttl):
    """After its ttl an entry is gone from every answer."""
    voice.set("user:1", Ok(1), ttl=ttl)
    voice.set("user:2", Ok(2), ttl=3600)
    time.sleep(0.06)

    assert voice.get("user:1") is None
    assert voice.has("user:1") is False
    assert voice.keys() == ["user:2"]
    assert len(voice) == 1


def test_a_ttl_lasts(voice):
    """Until then it is there, and says when it will end."""
    now = time.time()
    voice.set("user:1", Ok(1), ttl=100.5)

    assert now + 100.5 <= voice.get("user:1").stamp.expires_at <= time.time() + 100.5
    assert voice.keys() == ["user:1"]


@pytest.mark.parametrize(("ttl", "timeout"), [(None, None), (0.2, 2), (1, 2), (1.5, 3), (1e12, None)])
def test_a_backend_never_ends_an_entry_early(ttl, timeout):
    """What counts in whole seconds is given one more than needed."""
    assert backend_timeout(ttl) == timeout


def test_a_ttl_of_centuries_is_for_ever(voice):
    """No backend trips over the longest of times."""
    voice.set("user:1", Ok(1), ttl=timedelta.max)

    assert voice.get("user:1") == Ok(1)


def test_a_ttl_of_nothing_stores_nothing(voice):
    """Zero takes away what was there."""
    voice.set("user:1", Ok(1))
    voice.set("user:1", Ok(2), ttl=0)

    assert voice.get("user:1") is None


def test_entries_have_no_end_of_themselves(steps):
    """Django's 300 seconds do not apply: nothing expires that was given no ttl."""
    steps.set("user:1", Ok(1))

    assert steps.get("user:1").stamp.expires_at is None


def test_a_copied_result_keeps_its_stamp(steps):
    """What came out of a cache goes into another with its label and its end, unless it is given another end."""
    end = time.time() + 60
    stamp = Stamp("fetch", time.time(), 0.5, "run", end)
    steps.set("user:1", Ok(1, stamp=stamp))
    steps.set("user:2", Ok(1, stamp=stamp), ttl=3600)

    assert steps.get("user:1").stamp == stamp
    assert steps.get("user:2").stamp.label == "fetch"
    assert steps.get("user:2").stamp.expires_at > end + 3000


def test_keys_are_listed_as_given(voice):
    """Whatever a key is made of, it is listed sorted and unchanged."""
    for key in ODD:
        voice.set(key, Ok(key))

    assert voice.keys() == sorted(ODD)
    assert len(voice) == len(ODD)
    assert all(voice.get(key) == Ok(key) for key in ODD)


@hypothesis_settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=200), max_size=6
    ),
    st.text(":*[]%@é\U0010ffff\uffff", max_size=3),
)
def test_any_keys_are_listed_as_given(steps, keys, prefix):
    """Any set of keys comes back as the same set, and any prefix finds those that begin with it."""
    steps.clear()
    keys = {*keys, prefix + "x", prefix + "\U0010ffff\U0010ffff", "\ud7ff", "\ue000"}
    for key in keys:
        steps.set(key, Ok(key))

    assert steps.keys() == sorted(keys)
    assert steps.keys(prefix) == sorted(key for key in keys if key.startswith(prefix))
    assert steps.backend.count(steps.scope, prefix) == len(steps.keys(prefix))


def test_clear_by_prefix(voice):
    """Clearing a prefix says how many went and leaves the rest."""
    for key in ["user:1", "user:2", "order:1", "use"]:
        voice.set(key, Ok(key))

    assert voice.clear("user:") == 2
    assert voice.keys() == ["order:1", "use"]


def test_clear_leaves_what_is_not_its_own(voice, steps):
    """Other scopes, other versions and foreign keys in the same cache stay."""
    others = [StepCache(steps.alias, "check"), StepCache(steps.alias, "checkout2"), steps.bound("", 2)]
    for each in [steps, *others]:
        each.set("user:1", Ok(each.scope))
    caches[steps.alias].set("checkout:user:1", "foreign", timeout=None)

    assert voice.clear() == 1
    assert len(steps) == 0
    assert [each.get("user:1") for each in others] == [Ok(each.scope) for each in others]
    assert caches[steps.alias].get("checkout:user:1") == "foreign"


def test_clear_of_nothing(voice):
    """An empty scope is cleared of nothing."""
    assert voice.clear() == 0


def test_clear_of_many(steps):
    """More entries than fit in one batch are all cleared."""
    steps.set("keep:1", Ok(1))
    for number in range(1100):
        steps.set(f"user:{number}", Ok(number))

    assert steps.clear("user:") == 1100
    assert steps.keys() == ["keep:1"]


def test_it_behaves_like_a_map(steps):
    """len(), in and iteration work; it is true even when empty."""
    assert bool(steps) is True
    steps.set("b", Ok(1))
    steps.set("a", Ok(2))

    assert len(steps) == 2
    assert "a" in steps
    assert "c" not in steps
    assert 7 not in steps
    assert list(steps) == ["a", "b"]


def test_it_is_iterated_by_async_code(steps):
    """``async for`` gives the keys too."""

    async def listed():
        return [key async for key in steps]

    steps.set("b", Ok(1))
    steps.set("a", Ok(2))

    assert async_to_sync(listed)() == ["a", "b"]


@pytest.mark.parametrize("method", ["get", "has", "delete"])
@pytest.mark.parametrize("key", ["", " a", "a\n", "k" * 201, 7, None, "\ud800"])
def test_a_bad_key_is_refused(voice, method, key):
    """A key that no step could have is an error that shows the cache and the key."""
    with pytest.raises(InvalidStepKey, match=r"StepCache.*checkout"):
        getattr(voice, method)(key)
    with pytest.raises(InvalidStepKey):
        voice.set(key, Ok(1))


@pytest.mark.parametrize("value", [1, None, "Ok(1)", Ok])
def test_only_results_are_set(voice, value):
    """A plain value is refused, and the message says what to give."""
    with pytest.raises(InvalidUse, match=r"give Ok\(value\) or Err\(error\)"):
        voice.set("user:1", value)


def test_a_bad_ttl_is_refused(steps):
    """A ttl that is no span of time, or a negative one, is an error."""
    with pytest.raises(InvalidUse):
        steps.set("user:1", Ok(1), ttl="60")
    with pytest.raises(InvalidOption):
        steps.set("user:1", Ok(1), ttl=-1)
    assert steps.get("user:1") is None


@pytest.mark.parametrize("method", ["keys", "clear"])
def test_a_bad_prefix_is_refused(steps, method):
    """A prefix is text; None does not mean everything."""
    with pytest.raises(InvalidUse, match="prefix is None"):
        getattr(steps, method)(None)


def test_what_cannot_be_kept_is_refused(voice):
    """A value that would not come back as it was is not stored."""
    with pytest.raises(NotCacheable):
        voice.set("user:1", Ok(iter([])))
    assert voice.get("user:1") is None


def test_a_damaged_entry_counts_as_none_and_is_logged(steps, caplog):
    """Bytes that are no entry are got as None, with a warning that names cache and key."""
    overwrite(steps, "user:1", b"junk")

    with caplog.at_level(logging.WARNING, "stepflows"):
        assert steps.get("user:1") is None

    assert "checkout" in caplog.text
    assert "'user:1'" in caplog.text
    assert steps.has("user:1") is False
    assert steps.delete("user:1") is True


def test_an_entry_in_another_place_is_damaged(steps):
    """Bytes copied from one key to another do not pass for the other's."""
    steps.set("user:1", Ok(1))
    data = steps.backend.read(Name(steps.scope, "user:1"))
    overwrite(steps, "user:2", data)

    assert steps.get("user:2") is None


def test_pages_of_names(steps):
    """Names are listed by scope and key, from a start and up to a limit, for one scope or all."""
    other = StepCache(steps.alias, "another")
    for key in ["a:1", "a:2", "b:1"]:
        steps.set(key, Ok(key))
        other.set(key, Ok(key))
    backend = steps.backend
    names = [Name(scope, key) for scope in ["another", "checkout"] for key in ["a:1", "a:2", "b:1"]]

    assert backend.names() == names
    assert backend.names(start=2, limit=3) == names[2:5]
    assert backend.names(start=6) == []
    assert backend.names(limit=0) == []
    assert backend.names("checkout") == names[3:]
    assert backend.names("checkout", start=1, limit=1) == names[4:5]
    assert backend.names("checkout", "a:", 1, 5) == names[4:5]
    assert backend.names(prefix="a:") == [names[0], names[1], names[3], names[4]]
    assert backend.names(prefix="a:", start=1, limit=2) == [names[1], names[3]]
    assert backend.names(prefix="a:", start=3) == [names[4]]
    assert backend.names(prefix="a:", start=4) == []
    assert backend.names("none") == []
    assert list(backend.walk(size=4)) == [names[:4], names[4:]]
    assert list(backend.walk(prefix="b")) in ([[names[2], names[5]]], [[names[2]], [names[5]]])


def test_counts_and_scopes(steps):
    """How many there are is known for one scope, a prefix, or all."""
    other = StepCache(steps.alias, "another", version=3)
    for key in ["a:1", "a:2", "b:1"]:
        steps.set(key, Ok(key))
    other.set("a:1", Ok(1))
    backend = steps.backend

    assert backend.scopes() == ["another@3", "checkout"]
    assert [backend.count(), backend.count("checkout"), backend.count("checkout", "a:")] == [4, 3, 2]
    assert [backend.count(prefix="a:"), backend.count(prefix="zz"), backend.count("none")] == [3, 0, 0]


def test_a_survey_tells_all_that_a_page_shows(steps):
    """How many there are in each scope, and of those asked for the number, some names and their first bytes."""
    for key in ["a:1", "a:2", "b:1"]:
        steps.set(key, Ok(key))
        for namespace, version in (("checkout", 2), ("checkout-2", None), ("another", 3)):
            StepCache(steps.alias, namespace, version=version).set(key, Ok(key))
    backend = steps.backend
    scopes = ["another@3", "checkout", "checkout-2", "checkout@2"]

    everything = backend.survey()
    assert everything.sizes == dict.fromkeys(scopes, 3)
    assert list(everything.sizes) == scopes
    assert (everything.matching, everything.is_complete) == (12, True)
    assert everything.names == backend.names()
    assert everything.heads == backend.heads(backend.names())
    assert backend.survey(start=2, limit=3).names == backend.names(start=2, limit=3)

    own = [name for scope in ("checkout", "checkout@2") for name in backend.names(scope)]
    for start in range(7):
        page = backend.survey("checkout", start=start, limit=2, size=50)
        assert (page.matching, page.names) == (6, own[start : start + 2])
        assert page.heads == backend.heads(page.names, 50)
        assert page.sizes == everything.sizes

    prefixed = backend.survey("checkout", "a:", start=1, limit=2)
    assert (prefixed.matching, prefixed.names) == (4, [own[1], own[3]])
    assert backend.survey(prefix="b", limit=0)[1:4] == (4, [], [])
    assert backend.survey("none")[1:4] == (0, [], [])


def test_heads_are_the_first_bytes(steps):
    """A listing reads as much of each entry as it asks for."""
    steps.set("user:1", Ok("x" * 5000))
    names = [Name("checkout", "user:1"), Name("checkout", "none")]
    whole = steps.backend.read(names[0])

    assert steps.backend.heads(names, 100) == [whole[:100], None]
    assert steps.backend.heads([]) == []
    assert steps.backend.read(names[0]) == whole
    assert steps.backend.read(names[1]) is None


def test_large_values_are_listed_too(steps):
    """An entry of which only the beginning is read for its name is listed like any other."""
    steps.set("user:1", Ok(b"\x00\xff" * 500_000))
    steps.set("鍵" * 200, Ok("\U0010ffff" * 100_000))

    assert steps.keys() == ["user:1", "鍵" * 200]
    assert steps.get("user:1") == Ok(b"\x00\xff" * 500_000)


def test_removing_many_at_once(steps):
    """Removing counts what was there, each once."""
    for number in range(3):
        steps.set(f"user:{number}", Ok(number))
    names = [Name("checkout", f"user:{number}") for number in range(1500)]

    assert steps.backend.remove(names) == 3
    assert steps.backend.remove([]) == 0
    assert steps.load_many(["user:1", "user:2"]) == [MISSING, MISSING]


def test_prefix_and_version_of_the_alias_hold(cache_alias, settings):
    """Two aliases of one server with different prefixes do not see each other's steps."""
    mine = StepCache(cache_alias, "checkout")
    mine.set("user:1", Ok(1))
    changed = {**settings.CACHES[cache_alias], "KEY_PREFIX": "other%_", "VERSION": 7}
    settings.CACHES = {**settings.CACHES, "changed": changed}
    other = StepCache("changed", "checkout")
    other.set("user:2", Ok(2))

    assert mine.keys() == ["user:1"]
    assert other.keys() == ["user:2"]
    assert caches["changed"].make_key("x") == "other%_:7:x"


def hashed_key(key, key_prefix, version):
    """A KEY_FUNCTION that leaves nothing of a key to recognise."""
    return f"{key_prefix}{version}{hash(key):x}"


def test_a_key_function_of_ones_own(cache_alias, settings):
    """Keys are listed whatever the alias makes of them."""
    settings.CACHES = {
        **settings.CACHES,
        "changed": {**settings.CACHES[cache_alias], "KEY_FUNCTION": hashed_key, "KEY_PREFIX": "h"},
    }
    steps = StepCache("changed", "checkout")
    steps.set("user:1", Ok(1))
    StepCache(cache_alias, "checkout").set("user:2", Ok(2))

    assert steps.keys() == ["user:1"]
    assert steps.clear() == 1


# Which cache it is.


def test_without_an_alias_it_is_the_one_in_the_settings(settings):
    """The alias is looked up on use, so a changed setting counts."""
    steps = StepCache(namespace="checkout")
    steps.set("user:1", Ok(1))
    settings.STEPFLOWS = {"CACHE": "locmem"}
    steps.set("user:2", Ok(2))

    assert StepCache("default", "checkout").keys() == ["user:1"]
    assert StepCache("locmem", "checkout").keys() == ["user:2"]


@pytest.mark.parametrize("method", ["__len__", "keys", "clear"])
def test_an_unknown_alias(method):
    """The error names the alias, those that there are, and the setting."""
    with pytest.raises(InvalidUse, match=r"'nope'.*CACHES.*'default', 'locmem'"):
        getattr(StepCache("nope"), method)()


def test_an_alias_whose_backend_cannot_be_made(settings):
    """A wrong BACKEND is told with the alias."""
    settings.CACHES = {**settings.CACHES, "broken": {"BACKEND": "no.such.Backend"}}

    with pytest.raises(InvalidUse, match=r"'broken'.*no\.such\.Backend"):
        StepCache("broken").get("user:1")


@pytest.mark.parametrize(
    ("alias", "namespace"), [(7, "x"), (object(), "x"), (connection, "x"), ("default", None), ("", "x")]
)
def test_arguments_of_the_wrong_type(alias, namespace):
    """What is no alias or no namespace is refused at once."""
    with pytest.raises(InvalidUse, match="StepCache"):
        StepCache(alias, namespace)


def test_cache_objects_are_known_by_their_alias():
    """A cache object of CACHES, or Django's own proxy, is the same as its alias."""
    assert StepCache(caches["locmem"]) == StepCache("locmem")
    assert StepCache(default_cache) == StepCache("default")


def test_a_cache_object_without_an_alias():
    """Any other cache object is used as it is, and named by its class."""
    steps = StepCache(LocMemCache("of one's own", {"TIMEOUT": 1}), "checkout")
    steps.set("user:1", Ok(1))

    assert steps.get("user:1") == Ok(1)
    assert steps.keys() == ["user:1"]
    assert "LocMemCache" in steps.backend.title


def test_bound_to_a_workflow():
    """A workflow's name and version are the scope, where none is spelt out."""
    assert StepCache("locmem").bound("checkout", 2) == StepCache("locmem", "checkout", version=2)
    assert StepCache("locmem", "shared").bound("checkout") == StepCache("locmem", "shared")
    assert StepCache("locmem", "shared").bound("checkout", 2) == StepCache("locmem", "shared", version=2)
    assert StepCache("locmem", version=3).bound("checkout", 2) == StepCache("locmem", "checkout", version=3)


def test_it_is_a_value():
    """Equal caches are equal, hash alike and show what they are."""
    steps = StepCache("locmem", "checkout", version=2)

    assert steps == StepCache("locmem", "checkout", version=2)
    assert len({steps, StepCache("locmem", "checkout", version=2), StepCache("locmem", "checkout")}) == 2
    assert repr(steps) == "StepCache(alias='locmem', namespace='checkout', version=2)"


def test_the_dummy_cache_keeps_nothing(settings):
    """Django's dummy cache takes everything, keeps nothing and lists nothing."""
    settings.CACHES = {**settings.CACHES, "dummy": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    steps = StepCache("dummy", "checkout")

    assert store(steps, "user:1", Ok(1)) == Ok(1)
    steps.set("user:1", Ok(1))
    assert steps.get("user:1") is None
    assert (steps.keys(), len(steps), steps.clear(), steps.delete("user:1")) == ([], 0, 0, False)
    assert steps.backend.scopes() == []


class Memcached(BaseCache):
    """Like memcached in that it is not known how it keeps things."""

    def __init__(self, location, params):
        super().__init__(params)
        self.kept = {}

    def get(self, key, default=None, version=None):
        return self.kept.get(self.make_and_validate_key(key, version), default)

    def set(self, key, value, timeout=None, version=None):
        self.kept[self.make_and_validate_key(key, version)] = value

    def add(self, key, value, timeout=None, version=None):
        return self.kept.setdefault(self.make_and_validate_key(key, version), value) is value

    def delete(self, key, version=None):
        return self.kept.pop(self.make_and_validate_key(key, version), None) is not None


class Counting(LocMemCache):
    """Changes how a known backend gets, so it may keep things in another way."""

    def get(self, key, default=None, version=None):
        return super().get(key, default, version)


@pytest.mark.parametrize("kind", [Memcached, Counting])
def test_a_backend_that_cannot_list(kind):
    """Everything but listing works, and the error names backend and remedy."""
    steps = StepCache(kind("memcached", {}), "checkout")
    steps.set("user:1", Ok(1))

    assert steps.get("user:1") == Ok(1)
    assert steps.load_many(["user:1", "user:2"]) == [Ok(1), MISSING]
    assert store(steps, "user:1", Ok(2)) == Ok(1)
    assert steps.delete("user:1") is True
    assert steps.backend.can_list is False
    calls: list[Callable[[], Any]] = [steps.keys, steps.clear, steps.__len__, steps.backend.scopes, lambda: list(steps)]
    for call in calls:
        with pytest.raises(CannotList, match=rf"{kind.__name__}, which cannot say which keys it holds.*Redis"):
            call()
