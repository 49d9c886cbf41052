"""The fuzzers, for minutes instead of a hundred examples: what the codec keeps, what it refuses, and keys."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepflows import InvalidStepKey, Ok, StepCache, create_workflow
from stepflows.caches.codec import Codec
from tests.caches import test_codec_entry as entries
from tests.caches import test_codec_types as types
from tests.calls import Calls
from tests.contract import test_keys as keys
from tests.prove.trial import Row, Terms

__all__ = ["fuzzers"]

#: Examples between two looks at the clock.
_BATCH: Final = 100
_NAMESPACES: Final = itertools.count()


class Property(NamedTuple):
    what: str
    #: Raises when it does not hold of these arguments.
    check: Callable[..., object]
    arguments: Sequence[st.SearchStrategy[Any]]


def fuzzers(terms: Terms) -> Iterator[Row]:
    for number, each in enumerate(PROPERTIES):
        yield tried(each, terms.seconds / len(PROPERTIES), terms.seed + 1_000_000 * number)


def tried(each: Property, seconds: float, seed: int) -> Row:
    """Examples until the time is over, or until one is found of which it does not hold."""
    deadline = time.monotonic() + seconds
    examples = 0

    def counted(arguments: tuple[Any, ...]) -> None:
        nonlocal examples
        examples += 1
        each.check(*arguments)

    for batch in itertools.count(seed):
        try:
            _batch(counted, each, batch)
        except Exception as error:
            told = "\n".join([f"seed {batch}: {error!r}", *getattr(error, "__notes__", [])])
            return Row(each.what, f"{examples:,} examples", 1, f"{type(error).__name__}, seed {batch}", (told,))
        if time.monotonic() > deadline:
            break
    return Row(each.what, f"{examples:,} examples")


def _batch(check: Callable[[tuple[Any, ...]], None], each: Property, seed: int) -> None:
    limits = settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.seed(seed)(limits(given(st.tuples(*each.arguments))(check)))()


def _of(test: Any) -> Callable[..., object]:
    """What a test of the suite asks of one example."""
    check: Callable[..., object] = test.hypothesis.inner_test
    return check


def _again(value: Any) -> None:
    """An entry, signed or not, belongs to its key, and its head says so."""
    codec: Codec
    for codec in (entries.PLAIN, entries.SIGNED):
        data = codec.encode(Ok(value, stamp=entries.STAMP), "shop", "order:1")
        head = codec.head(data)
        assert (head.scope, head.key, head.stamp) == ("shop", "order:1", entries.STAMP)
        assert types.same(codec.decode(data, "shop", "order:1").value, value)


# Keys on a real server, beside a dict that is asked the same.

#: With what scopes, patterns, quoting and UTF-8 might trip over.
_LETTERS: Final = "ab:@%*?[]\\^-/ \u007f\u00e9\u20ac\U0001f600\uffff"
_KEYS: Final = st.text(_LETTERS, min_size=1, max_size=4).filter(lambda text: _is_usable(text))
_MOVES: Final = st.lists(
    st.tuples(st.sampled_from(["set", "set", "get", "delete", "clear", "keys", "len"]), _KEYS), min_size=1, max_size=20
)


def _is_usable(text: str) -> bool:
    plain = all(ord(sign) > 31 and not 127 <= ord(sign) < 160 and not 0xD800 <= ord(sign) < 0xE000 for sign in text)
    return plain and 0 < len(text) <= 200 and text == text.strip()


def _mirrored(moves: list[tuple[str, str]]) -> None:
    """A cache of steps does what a dict does, prefixes included; nothing is left of it at the end."""
    steps = StepCache("redis", namespace=f"fuzz {next(_NAMESPACES)}")
    model: dict[str, Any] = {}
    for number, (move, key) in enumerate(moves):
        below = sorted(each for each in model if each.startswith(key[:1]))
        if move == "set":
            steps.set(key, Ok(number))
            model[key] = Ok(number)
        elif move == "get":
            assert steps.get(key) == model.get(key)
        elif move == "delete":
            assert steps.delete(key) is (model.pop(key, None) is not None)
        elif move == "clear":
            assert steps.clear(key[:1]) == len(below)
            model = {each: value for each, value in model.items() if each not in below}
        elif move == "keys":
            assert steps.keys(key[:1]) == below
        else:
            assert len(steps) == len(model)
    assert {key: steps.get(key) for key in steps} == model
    assert steps.clear() == len(model)


def _taken_or_refused(key: str) -> None:
    """Any text is a key and then finds its value again, or it is refused before anything runs."""
    work = Calls(key)
    flow = create_workflow("fuzz", cache={})
    try:
        for _ in range(2):
            assert flow.run(lambda step, deps: step("a", work, key=key)) == Ok(key)
    except InvalidStepKey:
        assert not _is_usable(key)
        assert work.count == 0
    else:
        assert _is_usable(key)
        assert work.count == 1


_ANY_TEXT: Final = st.text(st.characters(exclude_categories=[]), max_size=12) | st.text(max_size=3).map("x".join)
_LONG_BYTES: Final = st.binary(max_size=2000)

PROPERTIES: Final = [
    Property("codec: any value comes back", _of(types.test_any_value_comes_back), [types.values]),
    Property("codec: any key of a dict comes back", _of(types.test_any_hashable_value_is_a_key), [types._hashable]),
    Property(
        "codec: any error comes back with its cause",
        _of(types.test_an_error_that_is_data_comes_back_with_its_cause),
        [types.values, types.values],
    ),
    Property("codec: any entry belongs to its key", _again, [types.values]),
    Property("hostile: any bytes are damaged", _of(entries.test_any_bytes_are_damaged), [_LONG_BYTES]),
    Property("hostile: any bytes have a head or none", _of(entries.test_any_bytes_have_a_head_or_none), [_LONG_BYTES]),
    Property(
        "hostile: any payload with a right checksum",
        _of(entries.test_any_payload_gives_a_result_or_damaged),
        [_LONG_BYTES, st.integers(0, 3)],
    ),
    Property(
        "hostile: any body of an extension type",
        _of(entries.test_any_body_of_an_extension_gives_a_result_or_damaged),
        [st.integers(0, 20), types.values, _LONG_BYTES],
    ),
    Property(
        "hostile: any change of an entry is found", _of(entries.test_any_mutation_is_damaged), [entries._mutations()]
    ),
    Property(
        "keys: usable ones never collide",
        _of(keys.test_usable_names_and_keys_never_collide_and_list_as_given),
        [st.lists(st.tuples(keys.USABLE, keys.USABLE), min_size=1, max_size=6, unique=True)],
    ),
    Property("keys: any text is taken or refused", _taken_or_refused, [_ANY_TEXT]),
    Property("keys: a server lists and clears as a dict does", _mirrored, [_MOVES]),
]
