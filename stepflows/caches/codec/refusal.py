"""What cannot be cached: the place inside a value where it lies, and what to return in its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepflows.caches.codec.classes import attributes, fields_of, path_of
from stepflows.caches.codec.exceptions import Pack, printed
from stepflows.caches.codec.types import KINDS
from stepflows.errors import NotCacheable

__all__ = ["located", "refusal"]

_AS_LIST = "Return list(value)."
_AS_BYTES = "Return bytes(value)."

#: What a value is and what to return, by the classes it may be of. Names, so that nothing has to be importable.
_REMEDIES = [
    ("a model instance", "Return its primary key, or a dict of the fields you need.", "django.db.models.base:Model"),
    ("a queryset", "Return list(queryset.values(...)).", "django.db.models.query:QuerySet"),
    ("a manager", "Return list(manager.values(...)).", "django.db.models.manager:BaseManager"),
    ("a lazy text", "Return str(value).", "django.utils.functional:Promise"),
    ("a lazy object", "Return the data you need of what it stands for.", "django.utils.functional:LazyObject"),
    # str(value) of this one gives the same object again.
    (
        "a text marked safe",
        'Return "".join(value), and mark it where it is used.',
        "django.utils.safestring:SafeString",
    ),
    (
        *("a response", "Return its status and its content, or the data in it."),
        *("django.http.response:HttpResponseBase", "httpx:Response", "requests.models:Response"),
    ),
    ("a buffer", "Return value.getvalue().", "_io:BytesIO", "_io:StringIO"),
    (
        *("an open file", "Return its path or its contents."),
        *("_io:_IOBase", "django.core.files.base:File", "tempfile:_TemporaryFileWrapper"),
    ),
    ("a generator", _AS_LIST, "builtins:generator"),
    ("an async generator", "Return [item async for item in value].", "builtins:async_generator"),
    ("an awaitable", "Await it and return what it gives.", "builtins:coroutine", "_asyncio:Future"),
    (
        *("a function", "Call it and return what it gives."),
        *("builtins:function", "builtins:method", "builtins:builtin_function_or_method", "functools:partial"),
    ),
    ("a class", "Return its name, or an instance.", "builtins:type"),
    ("a buffer of bytes", _AS_BYTES, "builtins:bytearray", "builtins:memoryview"),
    # Where pathlib is a package, the second.
    ("a path", "Return str(value).", "pathlib:PurePath", "pathlib._local:PurePath"),
    ("a time zone of another kind", "Use zoneinfo.ZoneInfo or datetime.timezone.", "datetime:tzinfo"),
    ("an array", "Return value.tolist().", "array:array", "numpy:ndarray"),
    ("a number of numpy", "Return value.item().", "numpy:generic"),
    ("a data frame", 'Return value.to_dict("records").', "pandas.core.frame:DataFrame", "pandas:DataFrame"),
    ("a pydantic model", "Return value.model_dump().", "pydantic.main:BaseModel"),
]
_BY_CLASS = {path: (what, remedy) for what, remedy, *paths in _REMEDIES for path in paths}
_PLAIN = {str, float, bytes, list, dict, *KINDS}

_MAX_SHOWN = 60
#: Nobody reads a longer path.
_MAX_STEPS = 200


def refusal(value: Any) -> NotCacheable:
    """The error for a value of a type that cannot be cached; whoever knows the path adds it."""
    what, remedy = next(filter(None, map(_remedy, type(value).__mro__)), None) or _otherwise(type(value))
    return NotCacheable(f"{what} ({path_of(type(value)).replace(':', '.').removeprefix('builtins.')})", remedy=remedy)


def _remedy(cls: type) -> tuple[str, str] | None:
    if cls in _PLAIN:
        name = cls.__qualname__
        again = f"{name}(value)" if cls.__module__ == "builtins" else f"a plain {cls.__module__}.{name}"
        return f"a subclass of {name}", f"Return {again}."
    return _BY_CLASS.get(path_of(cls))


def _otherwise(cls: type) -> tuple[str, str]:
    if issubclass(cls, Mapping):
        return "a view of a dict", "Return dict(value)."
    if issubclass(cls, Iterable):
        return "an iterable", _AS_LIST
    return "an object", "Return plain data (dict, list, str, int and so on), or make the class a dataclass."


def located(value: Any, refused: NotCacheable, pack: Pack, prefix: str = "") -> NotCacheable:
    """``refused``, with the path of the first part of the value that cannot be cached."""
    path, way = prefix, [value]
    while len(way) < _MAX_STEPS:
        for part, form, label in _parts_of(way[-1]):
            try:
                pack(part)
            except NotCacheable as exc:
                refused = exc
                path += form % _shown(label) if form != ".%s" else f".{label}"
                break
        else:
            return NotCacheable(refused.reason, path, refused.remedy)
        if any(part is each for each in way):
            return NotCacheable("it refers to itself", path, "Return data without circles.")
        way.append(part)
    return NotCacheable(refused.reason, prefix, refused.remedy)


def _parts_of(value: Any) -> Iterator[tuple[Any, str, Any]]:
    """What lies in a value, and how its place is spelt."""
    cls = type(value)
    if cls is dict:
        for key, item in value.items():
            yield key, "[%s]", key
            yield item, "[%s]", key
    elif cls is list or cls is tuple:
        yield from ((item, "[%s]", index) for index, item in enumerate(value))
    elif cls is set or cls is frozenset:
        yield from ((item, "{%s}", item) for item in value)
    elif (fields := fields_of(cls)) is not None:
        held = dict(zip(fields, value, strict=True)) if issubclass(cls, tuple) else {}
        yield from ((item, ".%s", name) for name, item in (held | attributes(value)).items())


def _shown(label: Any) -> str:
    shown = f'"{label}"' if type(label) is str and label.isprintable() and '"' not in label else printed(label, repr)
    return shown if len(shown) <= _MAX_SHOWN else shown[: _MAX_SHOWN - 1] + "…"
