"""Without SIGN, whoever can write to the cache chooses what steps return, and runs nothing thereby."""

from __future__ import annotations

import gc
import importlib
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache

from stepflows import CachedStepError, ClassNotLoaded, Err, NotCacheable, Ok, StepCache, create_workflow, dumps, loads
from stepflows.caches.codec import Codec
from stepflows.engine.cache import Damaged
from tests.security import gadgets
from tests.security.forging import CLASS_NAMES, entry, exception, ext, failure, member, packed, plant, record
from tests.security.gadgets import PATH, RAN

SET, ZONE, UUID = 2, 10, 12


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    gc.collect()
    RAN.clear()


def read(data: bytes) -> Any:
    """What an entry comes to."""
    return Codec().decode(data, "checkout", "user:1")


def value_of(value: Any) -> Any:
    """What an entry with this value comes to."""
    return read(entry(packed(value)))


def run(data: bytes) -> Any:
    """What a run comes to that finds this in place of its step's entry."""
    plant("locmem", data)
    flow = create_workflow("checkout", {}, cache="locmem")
    return flow.run(lambda step, deps: step("load", lambda: "ran", key="user:1"))


def test_a_forged_value_is_used():
    """Nothing but SIGN tells who has made an entry: a step that has one does not run."""
    assert run(entry(packed("forged"))) == Ok("forged")


def test_a_pickle_is_no_entry():
    """Whatever lies there is never unpickled."""
    assert run(pickle.dumps(Trap())) == Ok("ran")
    assert RAN == []


class Unpickling(BaseCache):
    """Keeps pickles, as Django's cache for memcached and many another do."""

    def __init__(self) -> None:
        super().__init__({})
        self.pickles: dict[str, bytes] = {}

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        pickled = self.pickles.get(key)
        return default if pickled is None else pickle.loads(pickled)


class Trap:
    def __reduce__(self) -> Any:
        return gadgets.function, ()


def test_a_cache_that_unpickles_does_so_before_stepflows_is_asked():
    """A backend that stepflows does not know is asked for values, and what it does to get them is its own affair."""
    cache = Unpickling()
    cache.pickles["stepflows:checkout:user:1"] = pickle.dumps(Trap())
    assert StepCache(cache, "checkout").get("user:1") is None
    assert RAN == ["function"]


@pytest.mark.parametrize("path", [*CLASS_NAMES, f"{PATH}:function", f"{PATH}:RAN", "builtins:type", ":", "", "a.b.c"])
@pytest.mark.parametrize("make", [member, record], ids=["member", "instance"])
def test_what_is_no_enum_dataclass_or_named_tuple_is_not_made(path: str, make: Any):
    """A name that leads to a function or to any other class leads nowhere, and nothing is called."""
    for parts in [("line", {"line": "x"}), ("", {}), ("args", {"args": ["true"], "shell": True})]:
        found = value_of(make(path, *(parts if make is record else parts[:1])))
        assert isinstance(found, Damaged) or isinstance(found.error, ClassNotLoaded)
    assert RAN == []


@pytest.mark.parametrize("path", [*CLASS_NAMES, f"{PATH}:function", f"{PATH}:Job", f"{PATH}:Mode"])
def test_what_is_no_exception_is_not_raised(path: str):
    """A step fails with a stand-in that has the name as text."""
    result = run(failure(exception(path, "rm -rf /", state={"line": "x"})))
    assert isinstance(result.error, CachedStepError)
    assert RAN == []


def test_nothing_is_imported():
    """A class of a module that is not loaded stays unknown, and the module unloaded."""
    assert "antigravity" not in sys.modules
    for found in (value_of(record("antigravity:Fly", "", {})), value_of(member("antigravity:Fly", "x"))):
        assert isinstance(found.error, ClassNotLoaded)
    assert isinstance(read(failure(exception("antigravity:Fly"))).error, CachedStepError)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "value",
    [
        record(f"{PATH}:Command", "line", {"line": "rm -rf /", "extra": 1}),
        record(f"{PATH}:Job", "line", {"line": "rm -rf /"}),
        exception(f"{PATH}:Failed", "rm -rf /", state={"line": "x"}),
        member(f"{PATH}:Mode", "SLOW"),
        member(f"{PATH}:Right", 64),
    ],
    ids=["dataclass", "named tuple", "exception", "member", "flag"],
)
def test_instances_are_made_without_their_class(value: Any):
    """No __new__, __init__, __post_init__, __setattr__ or __setstate__ of a class runs, whatever the entry gives it."""
    found = value_of(value)
    assert isinstance(found, Ok | Err)
    assert RAN == []


def test_an_attacker_makes_any_dataclass_of_the_process_with_any_fields():
    """Which class a value is of, and what it holds, is whatever the entry says; types are not checked."""
    found = value_of(record(f"{PATH}:Command", "line", {"line": ["no", "text"]}))
    assert type(found.value) is gadgets.Command
    assert vars(found.value) == {"line": ["no", "text"]}


def test_hashing_is_the_one_thing_that_a_class_does_itself():
    """The __hash__ and __eq__ of a class run where its instances are members of a set or keys of a dict."""
    value_of(ext(SET, record(f"{PATH}:Hashed", "line", {"line": "x"})))
    assert RAN == ["__hash__ x"]


def test_keys_of_equal_hash_are_read():
    """The hash of a number is not random, so whoever chooses numbers can have a set compare each with each."""
    numbers = [(number * sys.hash_info.modulus).to_bytes(16, "big") for number in range(50)]
    found = value_of(ext(SET, *[ext(UUID, number) for number in numbers]))
    assert (len(found.value), len(set(map(hash, found.value)))) == (50, 1)


def test_no_finalizer_runs():
    """A class with a __del__, which would run at the end on what the entry says, is neither made nor stored."""
    found = value_of([record(f"{PATH}:Finalized", "line", {"line": "forged"})])
    error = read(failure(exception(f"{PATH}:FinalizedError"))).error
    assert isinstance(found.error, ClassNotLoaded)
    assert isinstance(error, CachedStepError)
    del found, error
    gc.collect()
    assert RAN == []
    with pytest.raises(NotCacheable, match="whose __del__ would run for each copy"):
        Codec().encode(Ok(gadgets.Finalized("mine")))


EXITS = [
    "builtins:SystemExit",
    "builtins:KeyboardInterrupt",
    "builtins:GeneratorExit",
    "asyncio.exceptions:CancelledError",
]
EXITS += ["celery.exceptions:WorkerTerminate", "celery.exceptions:WorkerShutdown", "celery.exceptions:Reject"]
EXITS += ["billiard.exceptions:SoftTimeLimitExceeded", "stepflows.errors:InvalidUse"]


@pytest.mark.parametrize("path", EXITS)
@pytest.mark.parametrize("is_in_a_group", [False, True], ids=["alone", "in a group"])
def test_an_error_that_would_end_a_worker_counts_as_missing(path: str, is_in_a_group: bool):
    """An exit, a cancellation or a time limit is never stored, so it is never taken out either: the step runs."""
    module = path.partition(":")[0]
    importlib.import_module(module)
    error = exception(path)
    data = failure(exception("builtins:BaseExceptionGroup", "group", [error]) if is_in_a_group else error)
    assert isinstance(read(data).error, BaseException)
    assert run(data) == Ok("ran")
    plant("locmem", data)
    assert StepCache("locmem", "checkout").get("user:1") is None
    mapping = {"user:1": loads(dumps(read(data)))}
    flow = create_workflow("checkout", {}, cache=mapping)
    assert flow.run(lambda step, deps: step("load", lambda: "ran", key="user:1")) == Ok("ran")


def test_no_module_is_imported_by_printing_a_forged_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Newer Pythons import the module that an ImportError names, to suggest another spelling in its traceback."""
    (tmp_path / "stepflows_sprung.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    state = {"name": "stepflows_sprung", "name_from": "charge", "msg": "no"}
    error = read(failure(exception("builtins:ImportError", "no", state=state))).error
    assert type(error) is ImportError
    "".join(traceback.format_exception(error))
    assert "stepflows_sprung" not in sys.modules


def test_nothing_is_looked_through_by_printing_a_forged_error():
    """The same goes for the object that lacked an attribute."""
    state = {"name": "lin", "obj": record(f"{PATH}:Command", "line", {"line": "x"})}
    error = read(failure(exception("builtins:AttributeError", "no", state=state))).error
    assert type(error) is AttributeError
    assert error.obj is None


PRINTING = """
import sys
from tests.security.test_unsigned import UNICODE, read
for data in UNICODE:
    error = read(data).error
    str(error), repr(error)
print("alive")
"""
_ABOUT = {"UnicodeDecodeError": ("utf-8", b"x"), "UnicodeEncodeError": ("utf-8", "x"), "UnicodeTranslateError": ("x",)}
UNICODE = [
    failure(exception(f"builtins:{name}", *args, state=state))
    for name, about in _ABOUT.items()
    for args, state in [
        ((*about, -(10**12), 1 - 10**12, "r"), {}),
        ((*about, 0, 1, "r"), {"start": -(10**12), "end": 1 - 10**12}),
        ((*about, 0, 1, "r"), {"object": 5, "start": 10**12, "end": 10**12 + 1}),
        ((*about, 0, 1, "r"), {"object": None, "reason": None, "encoding": None}),
        ((), {"start": -5, "end": -4, "object": about[-1]}),
    ]
]


def test_no_forged_error_makes_python_crash():
    """A UnicodeError that begins before its text would have C read memory that is not its own, and end the process."""
    done = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-2000:]


def test_an_honest_unicode_error_comes_back():
    """The text, the place and the reason are as they were."""
    for convert in (b"\xff".decode, "\ud800".encode):
        with pytest.raises(UnicodeError) as raised:
            convert()
        found = Codec().decode(Codec().encode(Err(raised.value)))
        assert isinstance(found, Err)
        assert (type(found.error), str(found.error)) == (raised.type, str(raised.value))


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "Europe/../../x", "posixrules\0", "", "." * 5000]
)
def test_no_file_is_chosen_by_the_name_of_a_time_zone(name: str):
    """Only names that the time zone database lists are looked up in it."""
    assert isinstance(value_of(ext(ZONE, name)).error, ClassNotLoaded)


def test_what_an_error_says_of_its_attributes_shadows_none_of_ours():
    """An attribute that has the name of a method keeps no run from failing as it should."""
    state = dict.fromkeys(["with_traceback", "add_note", "subgroup", "__traceback__", "__class__", "__notes__"], 5)
    errors = [exception("builtins:ValueError", "no", state=state)]
    errors += [exception("builtins:ExceptionGroup", "no", errors, state=state)]
    for error in errors:
        result = run(failure(error))
        assert (type(result), type(result.error).__module__) == (Err, "builtins")


@pytest.mark.parametrize("state", [{}, {"step": "forged", "error": "no"}], ids=["nothing", "no step"])
def test_a_failure_of_a_step_that_lacks_what_it_has_is_a_failure(state):
    """Its run fails, and its row can be written."""
    result = run(failure(exception("stepflows.errors:StepFailed", state=state)))

    assert (result.error, result.step) == (state.get("error"), None)
    assert not result.ok
