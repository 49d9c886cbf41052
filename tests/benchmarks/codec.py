"""A result to bytes and back, at three sizes, beside pickle and JSON."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder

from stepflows import Ok
from stepflows.caches.codec import current_codec
from stepflows.results import Stamp, stamped
from tests.benchmarks.server import Server
from tests.benchmarks.stopwatch import fastest, repeated
from tests.benchmarks.table import Row, Table

__all__ = ["tables"]

#: Records, and how often to measure.
SIZES: Final = {"100 B": (1, 2000), "100 kB": (1_000, 10), "5 MB": (50_000, 1)}

Pair = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


def tables(server: Server) -> Iterator[Table]:
    yield Table("The codec, plain data", list(_rows(_plain)))
    yield Table("The codec, a decimal and a time in each record", list(_rows(_typed)))


def _plain(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": f"Customer {number}",
        "total": number / 100,
        "at": "2026-01-01T12:00:00+00:00",
        "open": True,
        "tags": ["new", "paid"],
    }


def _typed(number: int) -> dict[str, Any]:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=number)
    return _plain(number) | {"total": Decimal(number) / 100, "at": at}


def _codecs() -> dict[str, Pair]:
    codec, stamp = current_codec(), Stamp("fetch", 1_800_000_000.0, 0.2, "bench")
    return {
        "pickle": (lambda value: pickle.dumps(value, pickle.HIGHEST_PROTOCOL), pickle.loads),
        "stepflows": (lambda value: codec.encode(stamped(Ok(value), stamp), "bench", "user:7"), codec.decode),
        "json, types lost": (lambda value: json.dumps(value, cls=DjangoJSONEncoder).encode(), json.loads),
    }


def _rows(record: Callable[[int], dict[str, Any]]) -> Iterator[Row]:
    codecs = _codecs()
    for size, (records, times) in SIZES.items():
        value = [record(number) for number in range(records)]
        data = {name: encode(value) for name, (encode, _) in codecs.items()}
        encoders = {name: repeated(lambda encode=encode: encode(value)) for name, (encode, _) in codecs.items()}
        decoders = {
            name: repeated(lambda decode=decode, data=data[name]: decode(data)) for name, (_, decode) in codecs.items()
        }
        encoding, decoding = (fastest(contenders, times=times, rounds=5) for contenders in (encoders, decoders))
        for name in codecs:
            yield Row(f"{size}, {name}", _figures(name, encoding, decoding) | {"bytes": len(data[name])})


def _figures(name: str, encoding: dict[str, float], decoding: dict[str, float]) -> dict[str, float]:
    return {
        "encode µs": encoding[name] * 1e6,
        "ratio of encode": encoding[name] / encoding["pickle"],
        "decode µs": decoding[name] * 1e6,
        "ratio of decode": decoding[name] / decoding["pickle"],
    }
