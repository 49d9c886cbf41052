"""What to return in place of a value that cannot be cached."""

from __future__ import annotations

from typing import Any

from stepflows.errors import NotCacheable

__all__ = ["refusal"]

_AS_LIST = "Return list(value)."
_AS_BYTES = "Return bytes(value)."
_FILE = "an open file", "Return its path or its contents."
_CODE = "a function", "Call it and return what it gives."
_ROWS = "Return list(queryset.values(...))."
_RESPONSE = "a response", "Return its status and its content, or the data in it."
_GENERAL = "Return plain data (dict, list, str, int and so on), or make the class a dataclass."

#: By the name of the class or of its nearest base in this table. Names, so that nothing has to be importable.
_TABLE: dict[str, tuple[str, str]] = {
    "django.db.models.base.Model": ("a model instance", "Return its primary key, or a dict of the fields you need."),
    "django.db.models.query.QuerySet": ("a queryset", _ROWS),
    "django.db.models.query.RawQuerySet": ("a queryset", "Return a list of dicts of the fields you need."),
    "django.db.models.manager.BaseManager": ("a manager", "Return list(manager.values(...))."),
    "django.utils.functional.Promise": ("a lazy text", "Return str(value)."),
    "django.utils.functional.LazyObject": ("a lazy object", "Return the data you need of what it stands for."),
    # str(value) of this one gives the same object again.
    "django.utils.safestring.SafeString": (
        "a text marked safe",
        'Return "".join(value), and mark it where it is used.',
    ),
    "django.http.response.HttpResponseBase": _RESPONSE,
    "httpx.Response": _RESPONSE,
    "requests.models.Response": _RESPONSE,
    "django.core.files.base.File": _FILE,
    "_io._IOBase": _FILE,
    "_io.BytesIO": ("a buffer", "Return value.getvalue()."),
    "_io.StringIO": ("a buffer", "Return value.getvalue()."),
    "tempfile._TemporaryFileWrapper": _FILE,
    "builtins.generator": ("a generator", _AS_LIST),
    "builtins.async_generator": ("an async generator", "Return [item async for item in value]."),
    "builtins.coroutine": ("a coroutine", "Await it and return what it gives."),
    "_asyncio.Future": ("a future", "Await it and return what it gives."),
    "builtins.function": _CODE,
    "builtins.method": _CODE,
    "builtins.builtin_function_or_method": _CODE,
    "functools.partial": _CODE,
    "builtins.type": ("a class", "Return its name, or an instance."),
    "builtins.module": ("a module", "Return its name."),
    "builtins.bytearray": ("a bytearray", _AS_BYTES),
    "builtins.memoryview": ("a memoryview", _AS_BYTES),
    "builtins.complex": ("a complex number", "Return (value.real, value.imag)."),
    "fractions.Fraction": ("a fraction", "Return (value.numerator, value.denominator)."),
    "pathlib.PurePath": ("a path", "Return str(value)."),
    # Where pathlib is a package.
    "pathlib._local.PurePath": ("a path", "Return str(value)."),
    "datetime.tzinfo": ("a time zone of another kind", "Use zoneinfo.ZoneInfo or datetime.timezone."),
    "re.Pattern": ("a pattern", "Return value.pattern."),
    "builtins.range": ("a range", _AS_LIST),
    "collections.deque": ("a deque", _AS_LIST),
    "array.array": ("an array", _AS_LIST),
    "builtins.dict_keys": ("a view of a dict", _AS_LIST),
    "builtins.dict_values": ("a view of a dict", _AS_LIST),
    "builtins.dict_items": ("a view of a dict", _AS_LIST),
    "builtins.mappingproxy": ("a view of a dict", "Return dict(value)."),
    "types.SimpleNamespace": ("a namespace", "Return vars(value)."),
    "numpy.ndarray": ("an array", "Return value.tolist()."),
    "numpy.generic": ("a number of numpy", "Return value.item()."),
    "pandas.core.frame.DataFrame": ("a data frame", 'Return value.to_dict("records").'),
    "pydantic.main.BaseModel": ("a pydantic model", "Return value.model_dump()."),
    "builtins.str": ("a subclass of str", "Return str(value)."),
    "builtins.int": ("a subclass of int", "Return int(value)."),
    "builtins.float": ("a subclass of float", "Return float(value)."),
    "builtins.bytes": ("a subclass of bytes", _AS_BYTES),
    "builtins.list": ("a subclass of list", _AS_LIST),
    "builtins.tuple": ("a subclass of tuple", "Return tuple(value)."),
    "builtins.set": ("a subclass of set", "Return set(value)."),
    "builtins.frozenset": ("a subclass of frozenset", "Return frozenset(value)."),
    "builtins.dict": ("a subclass of dict", "Return dict(value)."),
    "datetime.datetime": ("a subclass of datetime", "Return a plain datetime.datetime."),
    "datetime.date": ("a subclass of date", "Return a plain datetime.date."),
    "datetime.time": ("a subclass of time", "Return a plain datetime.time."),
    "datetime.timedelta": ("a subclass of timedelta", "Return a plain datetime.timedelta."),
    "decimal.Decimal": ("a subclass of Decimal", "Return Decimal(value)."),
    "uuid.UUID": ("a subclass of UUID", "Return UUID(str(value))."),
}


def refusal(value: Any) -> NotCacheable:
    """The error for a value of a type that cannot be cached; whoever knows the path adds it."""
    names = [f"{owner.__module__}.{owner.__qualname__}" for owner in type(value).__mro__]
    what, remedy = next((_TABLE[name] for name in names if name in _TABLE), _otherwise(value))
    return NotCacheable(f"{what} ({names[0].removeprefix('builtins.')})", remedy=remedy)


def _otherwise(value: Any) -> tuple[str, str]:
    if hasattr(type(value), "__next__"):
        return "an iterator", _AS_LIST
    return "an object", _GENERAL
