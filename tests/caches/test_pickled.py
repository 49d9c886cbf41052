"""Plain bytes out of a pickle, without unpickling."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepflows.caches.pickled import Expiry, expiry, plain_bytes, plain_start

PROTOCOLS = [3, 4, 5]
SIZES = [0, 1, 255, 256, 65_535, 65_536, 70_000]


class Bomb:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemError('unpickled')",))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_every_size_and_protocol(protocol, size):
    """What Django pickled as bytes is read back."""
    data = bytes(range(256)) * (size // 256) + b"." * (size % 256)

    assert plain_bytes(pickle.dumps(data, protocol)) == data


def test_bytes_too_long_for_four_bytes_of_length():
    """The form for more than 4 GiB is known too."""
    assert plain_bytes(b"\x80\x05\x8e\x03\x00\x00\x00\x00\x00\x00\x00abc\x94.") == b"abc"


@pytest.mark.parametrize(
    "value",
    ["text", 1, None, [b"bytes"], (b"bytes",), bytearray(b"x"), Bomb(), {"a": 1}],
    ids=lambda value: repr(value)[:9],
)
@pytest.mark.parametrize("protocol", [2, *PROTOCOLS])
def test_anything_else_is_not_read(value, protocol):
    """Any other pickle is refused, whatever would happen on loading it."""
    assert plain_bytes(pickle.dumps(value, protocol)) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_no_trouble(data):
    """Reading is total, and what it reads is what unpickling would give."""
    for read in (plain_bytes, plain_start, expiry):
        read(data)
    found = plain_bytes(data)
    assert found is None or pickle.loads(data) == found


@given(st.binary(max_size=40), st.sampled_from(PROTOCOLS), st.data())
def test_a_cut_off_pickle_is_not_whole(data, protocol, draw):
    """A pickle that lost its end is refused; what is left of its bytes can be had."""
    whole = pickle.dumps(data, protocol)
    cut = draw.draw(st.integers(0, len(whole) - 1))

    assert plain_bytes(whole[:cut]) is None
    start = plain_start(whole[:cut])
    assert start is None or data.startswith(start)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_bytes_after_a_pickle_are_not_ours(protocol):
    """A pickle with something behind it is refused."""
    assert plain_bytes(pickle.dumps(b"a", protocol) + b"x") is None


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("moment", [None, 0.0, 1.8e9 + 1 / 3])
def test_a_time_of_expiry(protocol, moment):
    """The head of a file is read as far as it goes."""
    head = pickle.dumps(moment, protocol)

    assert expiry(head + b"rest") == Expiry(moment, len(head))


@pytest.mark.parametrize("head", [b"", b"\x80\x05", pickle.dumps(Bomb()), pickle.dumps("soon")])
def test_no_time_of_expiry(head):
    """Anything else is no time."""
    assert expiry(head) is None
