"""Enums, dataclasses and named tuples are found by name and rebuilt without running anything of theirs."""

from __future__ import annotations

import dataclasses
import enum
import sys
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from stepflows.caches.codec import Codec
from stepflows.errors import ClassNotLoaded, NotCacheable
from stepflows.results import Err, Ok, Stamp
from tests.caches import codec_models as models
from tests.caches.codec_models import RAN, again, same


@pytest.fixture(autouse=True)
def _quiet():
    RAN.clear()


@pytest.fixture
def shelf():
    """A module to put classes into and take them away again."""
    module = ModuleType("codec_shelf")
    sys.modules["codec_shelf"] = module
    yield module
    sys.modules.pop("codec_shelf", None)


def _put(shelf, cls, name=None):
    cls.__module__, cls.__qualname__ = "codec_shelf", name or cls.__name__
    setattr(shelf, cls.__qualname__, cls)
    return cls


def _not_loaded(data):
    stamp = Stamp("load", 1.5, 2.5, "run", None)
    found = Codec().decode(data)
    assert isinstance(found, Err)
    assert isinstance(found.error, ClassNotLoaded)
    assert found.stamp == stamp
    return str(found.error)


def _entry(value):
    return Codec().encode(Ok(value, stamp=Stamp("load", 1.5, 2.5, "run", None)))


def test_a_dataclass_is_not_constructed_again():
    """``__post_init__`` and cached properties do not run again; their outcome is kept."""
    value = models.Counted(3, 4)
    assert value.double == 24
    RAN.clear()
    found = again(value)
    assert found == value
    assert (found.total, found.note, found.double) == (12, "no field", 24)
    assert RAN == []


def test_own_code_of_a_class_does_not_run():
    """``__new__``, ``__setattr__`` and ``__setstate__`` of a class stay untouched."""
    value = models.Guard(1)
    RAN.clear()
    found = again(value)
    assert type(found) is models.Guard
    assert found.a == 1
    assert RAN == []


def test_a_field_that_was_never_set_stays_unset():
    """A field with ``init=False`` that nobody set is not set after the replay either."""
    found = again(models.Unfinished(1))
    assert found.a == 1
    assert not hasattr(found, "b")


def test_frozen_and_slotted_dataclasses_come_back():
    """Frozen and slotted dataclasses come back, whatever their fields hold."""
    value = [models.Money(1), models.Slim([models.Point({"a": 1})]), models.Box[int](3)]
    assert same(again(value), value)


def test_named_tuples_come_back_without_their_own_new():
    """A named tuple with its own ``__new__`` and attributes comes back with both values and attributes."""
    value = models.Noted(1, "a")
    value.remark = "x"
    RAN.clear()
    found = again(value)
    assert (type(found), found, found.remark) == (models.Noted, value, "x")
    assert RAN == []


def test_a_local_class_cannot_be_kept():
    """A class that cannot be found again by its name is refused, with the remedy."""

    @dataclasses.dataclass
    class Local:
        a: int

    class Nope(enum.Enum):
        A = 1

    class Tuple(NamedTuple):
        a: int

    class Point(Local):
        pass

    Point.__module__, Point.__qualname__ = models.__name__, "Point"
    for value in (Point(1), Local(1), Nope.A, Tuple(1), models.Misnamed(1)):
        with pytest.raises(NotCacheable, match="Define the class at module level") as caught:
            _entry({"x": [value]})
        assert caught.value.path == '["x"][0]'
        assert type(value).__qualname__ in str(caught.value)


def test_a_class_in_a_module_that_is_not_loaded(shelf):
    """A class whose module is not loaded is an ``Err`` with the stamp, and the module is not imported."""
    data = _entry([_put(shelf, dataclasses.make_dataclass("Gone", ["a"]))(1)])
    del sys.modules["codec_shelf"]
    assert "codec_shelf.Gone" in _not_loaded(data)
    assert "codec_shelf" not in sys.modules


def test_a_module_on_disk_is_not_imported(tmp_path, monkeypatch, shelf):
    """A module that could be imported is not."""
    (tmp_path / "codec_shelf.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    data = _entry(_put(shelf, enum.Enum("Gone", "A"))["A"])
    del sys.modules["codec_shelf"]
    assert "is not loaded" in _not_loaded(data)
    assert "codec_shelf" not in sys.modules


def test_a_module_that_is_no_module_is_not_asked(shelf):
    """An object that poses as a module is not asked for attributes."""
    data = _entry(_put(shelf, enum.Enum("Gone", "A"))["A"])

    class Poser:
        def __getattr__(self, name):
            RAN.append(name)

    sys.modules["codec_shelf"] = Poser()  # type: ignore[assignment]
    assert "is not loaded" in _not_loaded(data)
    assert RAN == []


def test_a_metaclass_is_not_asked(shelf):
    """Looking a nested class up runs no code of the metaclass of the outer one."""
    outer = _put(shelf, models.Meta("Outer", (), {}))
    inner: Any = enum.Enum("Inner", "A")
    inner.__module__, inner.__qualname__ = "codec_shelf", "Outer.Inner"
    outer.Inner = inner
    data = _entry(inner.A)
    assert Codec().decode(data).value is inner.A
    del outer.Inner
    RAN.clear()
    assert "no class of that name" in _not_loaded(data)
    assert RAN == []


@pytest.mark.parametrize("path", ["tests.caches.codec_models:NOT_A_CLASS", "codec_shelf:Thing"])
def test_what_is_no_class_any_more(shelf, path):
    """A name that stands for something else than a class is a class that is gone."""
    thing = _put(shelf, enum.Enum("Thing", "A"))
    data = _entry(thing.A)
    shelf.Thing = "text"
    assert "no class of that name" in _not_loaded(data)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (enum.Enum("Thing", "A")["A"], "is not an Enum"),
        (enum.Flag("Thing", "A")["A"], "is not an Enum"),
        (dataclasses.make_dataclass("Thing", ["a"])(1), "is no dataclass or named tuple"),
        (NamedTuple("Thing", [("a", int)])(1), "is no dataclass or named tuple"),
    ],
)
def test_a_class_of_another_kind(shelf, value, reason):
    """A class that has become another kind of class is not filled with what was stored."""
    _put(shelf, type(value), "Thing")
    data = _entry(value)
    shelf.Thing = models.Outer
    assert reason in _not_loaded(data)


@pytest.mark.parametrize("now", [["a"], ["a", "b", "c"], ["a", "c"]])
def test_changed_fields(shelf, now):
    """A dataclass or named tuple whose fields have changed is not guessed at."""
    data = _entry(_put(shelf, dataclasses.make_dataclass("Thing", ["a", "b"]))(1, 2))
    _put(shelf, dataclasses.make_dataclass("Thing", now))
    assert "its fields were a, b and are " + ", ".join(now) in _not_loaded(data)
    data = _entry(_put(shelf, NamedTuple("Thing", [("a", int), ("b", int)]))(1, 2))
    _put(shelf, NamedTuple("Thing", [(name, int) for name in now]))
    assert "its fields were" in _not_loaded(data)


def test_a_tuple_without_fields_is_no_named_tuple(shelf):
    """A plain subclass of tuple is not taken for the named tuple it was."""
    data = _entry(_put(shelf, NamedTuple("Thing", [("a", int)]))(1))
    _put(shelf, type("Thing", (tuple,), {}))
    assert "no dataclass or named tuple" in _not_loaded(data)


def test_named_tuples_may_reorder_their_fields(shelf):
    """Fields of a named tuple are told by name, not by place."""
    data = _entry(_put(shelf, NamedTuple("Thing", [("a", int), ("b", int)]))(1, 2))
    _put(shelf, NamedTuple("Thing", [("b", int), ("a", int)]))
    assert Codec().decode(data).value == (2, 1)


def test_a_member_that_is_gone(shelf):
    """A member or flag that an enum no longer has is a class that has changed."""
    data = _entry(_put(shelf, enum.Enum("Thing", "A B"))["B"])
    _put(shelf, enum.Enum("Thing", "A"))
    assert "no member 'B'" in _not_loaded(data)
    data = _entry(_put(shelf, enum.Flag("Thing", "A B"))["B"])
    _put(shelf, enum.Flag("Thing", "A"))
    assert "no member 2" in _not_loaded(data)


def test_a_combination_of_flags_nobody_has_made_yet(shelf):
    """A combination of flags is made again where it was never made."""
    first = _put(shelf, enum.Flag("Thing", "A B C"))
    data = _entry(first.A | first.C)
    now = _put(shelf, enum.Flag("Thing", "A B C"))
    assert Codec().decode(data).value is now.A | now.C


def test_a_dataclass_that_lost_its_room(shelf):
    """Attributes that have no place in the class any more make it a changed class."""
    value = _put(shelf, dataclasses.make_dataclass("Thing", ["a"]))(1)
    value.extra = 2
    data = _entry(value)
    _put(shelf, dataclasses.make_dataclass("Thing", ["a"], slots=True))
    assert "other slots" in _not_loaded(data)


def test_a_dataclass_that_became_abstract(shelf):
    """A class that cannot be instantiated any more is a changed class."""
    from abc import ABC, abstractmethod

    data = _entry(_put(shelf, dataclasses.make_dataclass("Thing", ["a"]))(1))
    base = type("Base", (ABC,), {"run": abstractmethod(lambda self: None)})
    _put(shelf, dataclasses.make_dataclass("Thing", ["a"], bases=(base,)))
    assert "abstract" in _not_loaded(data)


def test_a_dataclass_that_is_a_dict_too():
    """A dataclass that extends a built-in container has more than fields, so it is refused."""
    with pytest.raises(NotCacheable, match="a subclass of dict"):
        _entry(models.DictLike(1))
