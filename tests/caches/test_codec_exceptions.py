"""Exceptions come back as their class, with arguments, attributes and cause, and nothing of theirs runs."""

from __future__ import annotations

import copy
import json
import logging
import sys
import threading
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from django.core.exceptions import ValidationError
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given, settings

from stepflows.caches.codec import Codec
from stepflows.errors import CachedStepError, NotCacheable, StepFailed
from stepflows.results import Err, FailedStep, Ok, Stamp
from tests.caches import codec_models as models
from tests.caches.codec_models import RAN, again, same
from tests.caches.test_codec_types import values


def replayed(error, cause=None, codec=None):
    codec = codec or Codec()
    found = codec.decode(codec.encode(Err(error, cause if cause is not None else error.__cause__)))
    assert isinstance(found, Err), found
    return found.error


def _raised(function):
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError


@pytest.fixture(autouse=True)
def _quiet():
    RAN.clear()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        OSError("x"),
        OSError(2, "No such file", "a.txt"),
        FileNotFoundError(2, "No such file", "a.txt", None, "b.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        UnicodeEncodeError("ascii", "\xff", 0, 1, "bad"),
        StopIteration(7),
        SystemExit(3),
        KeyboardInterrupt(),
        ImportError("m", name="n", path="p"),
        AttributeError("a", name="b", obj=object()),
        NameError("a", name="b"),
        SyntaxError("bad", ("f.py", 1, 2, "text")),
        _raised(lambda: json.loads("{")),
        _raised(lambda: 1 / 0),
        models.CodedOSError("a", "b"),
        models.Both("a"),
        StepFailed("x", None, FailedStep("a", "b")),
        NotCacheable("a", "b", "c"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_comes_back(error):
    """Class, arguments, message and attributes are those of the first time, C's own slots included."""
    found = replayed(error)
    assert type(found) is type(error)
    assert same(BaseException.args.__get__(found), BaseException.args.__get__(error))
    assert str(found) == str(error)
    assert same(vars(found), vars(error))
    slots = ("errno", "strerror", "filename", "filename2", "start", "end", "object", "code", "value", "lineno", "name")
    for name in slots:
        assert getattr(found, name, None) == getattr(error, name, None)


@settings(max_examples=60)
@given(args=values, note=values)
def test_any_arguments_and_attributes_come_back(args, note):
    """Arguments and attributes of any supported type come back, in exceptions anywhere in a value."""
    error = ValueError(args, note)
    error.note = note
    (found,) = again([error])
    assert same(found.args, error.args)
    assert same(found.note, note)


def test_an_exception_with_an_init_of_its_own():
    """Keyword-only arguments are not asked for again: class, ``args`` and attributes are set as they were."""
    error = models.Declined(code="stolen", amount=5)
    RAN.clear()
    found = replayed(error)
    assert (type(found), found.args, found.code, found.amount) == (models.Declined, error.args, "stolen", 5)
    assert RAN == []


def test_nothing_of_the_class_runs():
    """Its own ``__new__``, ``__setattr__`` and properties named like those of exceptions stay untouched."""
    error = models.Own("a")
    RAN.clear()
    found = replayed(error)
    assert BaseException.args.__get__(found) == ("a",)
    assert RAN == []


def test_slots_come_back():
    """Attributes in ``__slots__`` are kept, and one that was not set stays unset."""
    found = replayed(models.Slotted("here"))
    assert found.place == "here"
    assert not hasattr(found, "unset")


def test_notes_and_cause_come_back():
    """``__notes__`` and the chain of causes are kept; traceback and context are not."""

    def fail():
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise ValueError("outer") from exc

    error = _raised(fail)
    error.add_note("on Monday")
    found = Codec().decode(Codec().encode(Err(error, error.__cause__)))
    assert found.error.__notes__ == ["on Monday"]
    assert type(found.error.__cause__) is KeyError
    assert found.cause is found.error.__cause__
    assert found.error.__traceback__ is None
    assert found.error.__context__ is None


def test_where_an_exception_was_raised_is_kept_for_people_to_read():
    """The innermost calls of it, however deep it was; the exception that comes back has no traceback."""

    def fail(depth):
        if depth:
            fail(depth - 1)
        raise ValueError("deep")

    data = Codec().encode(Err(_raised(lambda: fail(20))))
    origin = Codec().origin(data)
    assert len(origin) == 5
    assert all(f"{Path(__file__).name}:" in line and line.endswith(".fail") for line in origin)
    assert Codec().decode(data).error.__traceback__ is None


@pytest.mark.parametrize(
    "data",
    [
        Codec().encode(Err(ValueError("never raised"))),
        Codec().encode(Err("no exception")),
        Codec().encode(Err([1, 2, 3, 4, 5, [6]])),
        Codec().encode(Ok(1)),
        b"rubbish",
    ],
)
def test_nothing_is_told_of_what_was_not_raised(data):
    """An exception that was only made, an error that is a value, a success, and bytes that are no entry."""
    assert Codec().origin(data) == []


def test_a_class_that_hides_its_traceback_is_no_trouble():
    """What Python has noted counts."""

    class SlyError(Exception):
        @property
        def __traceback__(self):  # type: ignore[override]
            raise RuntimeError("go away")

    def fail():
        raise SlyError

    assert Codec().origin(Codec().encode(Err(_raised(fail))))


def test_a_cause_of_its_own_comes_back():
    """A cause that was given beside an exception comes back beside it."""
    found = Codec().decode(Codec().encode(Err(ValueError("a"), {"b": 1})))
    assert (found.error.__cause__, found.cause) == (None, {"b": 1})


def test_groups_come_back():
    """Exception groups come back with message and members, nested too."""
    group = ExceptionGroup("all", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])])
    found = replayed(group)
    assert (type(found), found.message, found.args[0]) == (ExceptionGroup, "all", "all")
    assert [type(member) for member in found.exceptions] == [ValueError, ExceptionGroup]
    assert found.args[1] == list(found.exceptions)
    assert found.exceptions[1].exceptions[0].args == (2,)
    base = replayed(BaseExceptionGroup("base", (KeyboardInterrupt(),)))
    assert (type(base), type(base.exceptions[0])) == (BaseExceptionGroup, KeyboardInterrupt)


def test_a_group_with_a_new_of_its_own():
    """A group whose class takes other arguments comes back with message, members and attributes."""
    found = replayed(models.Failures([ValueError(1)], 7))
    assert (type(found), found.code, found.message) == (models.Failures, 7, "code 7")
    assert type(found.exceptions[0]) is ValueError


def test_a_group_with_a_member_that_no_longer_fits():
    """A group that cannot be put together again stands by name and message."""
    module = sys.modules["codec_group"] = ModuleType("codec_group")
    module.Failures = type("Failures", (BaseExceptionGroup,), {"__module__": "codec_group"})
    data = Codec().encode(Err(module.Failures("all", [KeyboardInterrupt()])))
    module.Failures = type("Failures", (ExceptionGroup,), {"__module__": "codec_group"})
    found = Codec().decode(data).error
    del sys.modules["codec_group"]
    assert (type(found), found.name) == (CachedStepError, "codec_group.Failures")


def test_an_attribute_that_cannot_be_kept_is_left_out(caplog):
    """An open connection on an error is left out, with a warning that names class and attribute."""
    error = ValueError("a")
    error.response, error.status = threading.Lock(), 502
    with caplog.at_level(logging.WARNING, "stepflows"):
        found = replayed(error)
    assert (found.args, vars(found)) == (("a",), {"status": 502})
    assert "builtins.ValueError" in caplog.text
    assert "'response'" in caplog.text


def test_a_private_attribute_that_cannot_be_kept_is_no_warning(caplog):
    """What is left out of the private attributes of an error is told at the level of debugging alone."""
    error = httpx.ConnectError("refused", request=httpx.Request("GET", "https://example.test"))
    with caplog.at_level(logging.DEBUG, "stepflows"):
        found = replayed(error)
    assert (type(found), str(found)) == (httpx.ConnectError, "refused")
    assert [(record.levelname, "'_request'" in record.message) for record in caplog.records] == [("DEBUG", True)]


def test_an_argument_that_cannot_be_kept_stands_as_text():
    """The class stays, so that ``except`` does the same; the argument is its repr, or says that it has none."""
    lock = threading.Lock()
    error = ValueError("a", lock, models.Unprintable(), [lock])
    found = replayed(error)
    assert type(found) is ValueError
    assert found.args[:2] == ("a", repr(lock))
    assert type(found.args[2]) is models.Unprintable
    assert found.args[3] == repr([lock])
    assert len(replayed(ValueError([lock] * 1000)).args[0]) == 1000
    assert replayed(ValueError([lock, models.Unprintable()])).args == ("<unprintable list>",)


def test_lazy_and_marked_texts_stand_as_plain_ones(caplog):
    """A lazy translation in an error comes back as its text, without a warning."""
    error = ValueError(gettext_lazy("Yes"), mark_safe("<b>"))
    error.lazy, error.safe = gettext_lazy("No"), mark_safe("<i>")
    found = replayed(error)
    assert same(found.args, ("Yes", "<b>"))
    assert same(vars(found), {"lazy": "No", "safe": "<i>"})
    assert caplog.text == ""


@pytest.mark.parametrize("given_as", ["wrong", ["a", "b"], {"name": ["a", "b"], "age": ["c"]}])
def test_validation_errors_of_django_come_back(given_as):
    """Django's ``ValidationError`` refers to itself, and comes back so."""
    error = ValidationError(given_as, code="c")
    found = replayed(error)
    assert found == error
    assert found.messages == error.messages
    assert str(found) == str(error)
    if isinstance(given_as, str):
        assert found.error_list[0] is found


def test_circles_end():
    """An error that is its own argument, cause or attribute comes back, with a stand-in for itself."""
    error = ValueError("a")
    error.args = (error, error)
    error.__cause__ = KeyError("b")
    error.__cause__.__cause__ = error
    found = replayed(error)
    assert [type(arg) for arg in found.args] == [CachedStepError, CachedStepError]
    assert type(found.__cause__.__cause__) is CachedStepError
    other = RuntimeError("c")
    error.other, other.other = other, error
    error.args = ("a",)
    found = replayed(error)
    assert (type(found.other), type(found.other.other)) == (RuntimeError, CachedStepError)


def test_long_chains_end():
    """A chain of many causes is cut, the last by name and message."""
    error = ValueError(0)
    for number in range(1, 50):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    found, count = replayed(error), 0
    while found.__cause__ is not None:
        found, count = found.__cause__, count + 1
    assert (count, type(found), found.name, found.message) == (10, CachedStepError, "builtins.ValueError", "39")


def test_a_local_class_stands_by_name_and_message():
    """An exception class that cannot be found again comes back as CachedStepError, with its cause."""

    class Local(Exception):
        pass

    error = Local("sad")
    error.__cause__ = ValueError("why")
    found = replayed(error)
    assert type(found) is CachedStepError
    assert (found.name.rpartition(".")[2], found.message) == ("Local", "sad")
    assert found.name.startswith(__name__)
    assert type(found.__cause__) is ValueError


def test_a_class_that_is_gone_or_no_exception_any_more(monkeypatch):
    """An exception class that is not loaded, or is something else now, is never imported or filled."""
    data = Codec().encode(Err(models.Declined(code="a", amount=1), stamp=Stamp("label")))
    monkeypatch.setattr(models, "Declined", models.Point)
    found = Codec().decode(data)
    assert (type(found.error), found.error.message, found.stamp.label) == (CachedStepError, "declined: a", "label")
    monkeypatch.delitem(sys.modules, models.__name__)
    assert type(Codec().decode(data).error) is CachedStepError


def test_a_class_whose_base_cannot_make_it(monkeypatch):
    """An exception class that cannot be made without arguments stands by name and message."""
    data = Codec().encode(Err(models.Declined(code="a", amount=1)))
    monkeypatch.setattr(models, "Declined", ExceptionGroup)
    assert type(Codec().decode(data).error) is not ExceptionGroup

    def refuse(cls):
        raise TypeError("no")

    monkeypatch.undo()
    monkeypatch.setattr("stepflows.caches.codec.classes.maker_of", lambda cls: type("Base", (), {"__new__": refuse}))
    assert type(Codec().decode(data).error) is CachedStepError


def test_parts_whose_class_is_not_loaded_do_not_hide_the_error(monkeypatch):
    """An argument of a missing class stands as text, an attribute is left out, the error stays itself."""
    error = ValueError(models.Money(1))
    error.price, error.code = models.Money(2), 3
    data = Codec().encode(Err(error))
    monkeypatch.delattr(models, "Money")
    found = Codec().decode(data).error
    assert found.args == ("<tests.caches.codec_models.Money, not loaded>",)
    assert vars(found) == {"code": 3}


def test_an_error_too_large_is_kept_by_name_and_message():
    """An error with a huge document in it is stored without all that, not hidden by NotCacheable."""
    error = _raised(lambda: json.loads("[" * 300 + "x" * 50_000))
    error.__cause__ = ValueError("y" * 50_000)
    codec = Codec(max_bytes=8000)
    found = codec.decode(codec.encode(Err(error, error.__cause__, stamp=Stamp("label"))))
    assert type(found.error) is CachedStepError
    assert (found.error.name, found.error.message) == ("json.decoder.JSONDecodeError", str(error))
    assert (found.cause, found.stamp) == (None, Stamp("label"))
    assert len(replayed(ValueError("x" * 50_000), codec=codec).message) == 1000


def test_an_error_whose_message_fails():
    """An error that cannot even be printed is kept."""
    found = replayed(models.Unprintable("a"))
    assert (type(found), found.args) == (models.Unprintable, ("a",))


def test_a_cause_that_cannot_be_kept_does_not_mask_the_error():
    """A cause that cannot be kept stands as text beside an error that can."""
    found = Codec().decode(Codec().encode(Err("NOT_FOUND", threading.Lock())))
    assert found.error == "NOT_FOUND"
    assert "lock" in found.cause


def test_copies_of_the_entry_are_independent():
    """Each replay gives an object of its own."""
    data = Codec().encode(Ok(copy.copy(ValueError([1]))))
    assert Codec().decode(data).value is not Codec().decode(data).value
