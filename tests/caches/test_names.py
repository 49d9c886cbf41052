"""Names: what an entry is called, here and on the server."""

import warnings

import pytest
from django.core.cache.backends.base import memcache_key_warnings
from hypothesis import given
from hypothesis import strategies as st

from stepflows.caches.names import Name, backend_key, namespace_of, reserved_key, scope_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
awkward = st.one_of(texts, st.text(":*[]%@/ aA\x01é", max_size=8))
keys = awkward.filter(lambda key: key and "\0" not in key)
versions = st.none() | st.integers() | awkward
names = st.builds(Name, st.builds(scope_of, awkward, versions), keys)


@pytest.mark.parametrize(
    ("namespace", "version", "scope"),
    [
        ("checkout", None, "checkout"),
        ("checkout", 2, "checkout@2"),
        ("check:out", None, "check%3Aout"),
        ("checkout@2", None, "checkout%402"),
        ("shop/checkout", "2026-01", "shop/checkout@2026-01"),
        ("", None, ""),
        ("", "", "@"),
        ("é", "%", "%C3%A9@%25"),
    ],
)
def test_a_scope_stays_readable(namespace, version, scope):
    """Usual names are their own scope, others are quoted."""
    assert scope_of(namespace, version) == scope


@given(awkward, versions)
def test_a_scope_gives_its_parts_back(namespace, version):
    """Namespace and version can be read from the scope."""
    assert namespace_of(scope_of(namespace, version)) == (namespace, None if version is None else str(version))


@given(names, names)
def test_names_never_collide(one, other):
    """Different names have different keys."""
    assert (backend_key(one) == backend_key(other)) == (one == other)


@given(names)
def test_a_backend_key_obeys_memcached(name):
    """No key makes Django warn, and there is room for the alias's own prefix and version."""
    key = backend_key(name)

    assert list(memcache_key_warnings(key)) == []
    assert key.isascii()
    assert len(key) <= 200


def test_a_usual_key_is_readable():
    """What needs no quoting is not quoted."""
    assert backend_key(Name("checkout@2", "user:1#[x]*")) == "stepflows:checkout@2:user:1#[x]*"


@pytest.mark.parametrize(("one", "other"), [("é", "%C3%A9"), (" ", "%20"), ("%", "%25")])
def test_a_key_cannot_imitate_quoting(one, other):
    """A key that looks like another one quoted is quoted itself."""
    assert backend_key(Name("a", one)) != backend_key(Name("a", other))


def test_a_long_key_is_hashed():
    """A key that is too long for memcached is replaced by a hash that no quoted key can be."""
    key = backend_key(Name("checkout", "k" * 200))

    assert key.startswith("stepflows:%%")
    assert key != backend_key(Name("checkout", "k" * 199))
    assert backend_key(Name("%%", "k")) != key


@given(names)
def test_a_reserved_key_is_no_entry(name):
    """No entry can take the place of the index."""
    assert backend_key(name) != reserved_key("index")


def test_lone_surrogates_do_no_harm():
    """Text that is no Unicode is quoted like the rest."""
    assert namespace_of(scope_of("\ud800")) == ("\ud800", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backend_key(Name("a", "\ud800")) == "stepflows:a:%ED%A0%80"
