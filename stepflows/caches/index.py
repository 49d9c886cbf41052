r"""Which entries a Redis server holds: two sorted sets per alias, kept by scripts so that no two of them can interfere.

One set holds a member ``<scope>\0<key>`` for each entry, all with score 0, so it is ordered text. The other holds
those that have a ttl, scored by the time when it ends (milliseconds of the server's clock), so what is past is found
without a search. Entries that the server evicted, or somebody else deleted, leave their members behind until a listing
finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from redis import Redis

from stepflows.caches.names import Name, reserved_key

__all__ = ["Index", "Range", "member_of", "name_of", "range_of"]

#: The members from ``low`` (included) to ``high`` (left out; empty is no bound).
Range = tuple[bytes, bytes]

# Above every byte of UTF-8.
_TOP: Final = b"\xff"
_STEP: Final = 1000
_CENTURIES: Final = 10**16

_PURGE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function purge(most)
    local past = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.format('%.0f', now), 'LIMIT', 0, most)
    for _, member in ipairs(past) do
        redis.call('ZREM', KEYS[1], member)
        redis.call('ZREM', KEYS[2], member)
    end
    return #past == most
end
"""

# Replies with what was there first, or nothing when it stored. What is there and no string is foreign.
_STORE: Final = (
    _PURGE
    + """
local data, member, ttl, replace = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
if not replace then
    local first = redis.pcall('GET', KEYS[3])
    if type(first) == 'string' then return first end
end
if ttl > 0 then
    redis.call('SET', KEYS[3], data, 'PX', ARGV[3])
    redis.call('ZADD', KEYS[2], string.format('%.0f', now + ttl), member)
    purge(5)
else
    redis.call('SET', KEYS[3], data)
    redis.call('ZREM', KEYS[2], member)
end
redis.call('ZADD', KEYS[1], 0, member)
return false
"""
)

# Everything that lists begins so, and replies with a false start while there is more to purge.
_PURGED: Final = _PURGE + "if purge(1000) then return {1} end\n"

_COUNT: Final = (
    _PURGED
    + """
local below = redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[1])
if ARGV[2] == '' then return {0, redis.call('ZCARD', KEYS[1]) - below} end
return {0, redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[2]) - below}
"""
)

# By rank, so that a page far in costs as much as the first one.
_PAGE: Final = (
    _PURGED
    + """
local first = redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[1]) + tonumber(ARGV[3])
local stop = first + tonumber(ARGV[4])
if ARGV[2] ~= '' then stop = math.min(stop, redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[2])) end
if first >= stop then return {0, {}} end
return {0, redis.call('ZRANGE', KEYS[1], first, stop - 1)}
"""
)

_SCOPES: Final = (
    _PURGED
    + r"""
local found, low = {}, '[' .. ARGV[1]
for i = 1, tonumber(ARGV[2]) do
    local member = redis.call('ZRANGEBYLEX', KEYS[1], low, '+', 'LIMIT', 0, 1)[1]
    if not member then break end
    found[i] = string.sub(member, 1, (string.find(member, '\0', 1, true) or #member + 1) - 1)
    low = '[' .. found[i] .. '\0\255'
end
return {0, found}
"""
)

# Looks and drops in one, so that an entry stored meanwhile stays listed.
_LIVING: Final = """
local living = {}
for i, member in ipairs(ARGV) do
    living[i] = redis.call('EXISTS', KEYS[i + 2])
    if living[i] == 0 then
        redis.call('ZREM', KEYS[1], member)
        redis.call('ZREM', KEYS[2], member)
    end
end
return living
"""


class Index:
    """The index of one alias, on a client that gives bytes."""

    def __init__(self, client: Redis, make_key: Callable[[str], str]) -> None:
        self._client = client
        self._keys = [make_key(reserved_key("index")), make_key(reserved_key("expiry"))]

    def store(self, key: str, name: Name, data: bytes, ttl: float | None, *, replace: bool) -> bytes | None:
        """Write entry and index at once; or return the bytes that were there first."""
        milliseconds = 0 if ttl is None else min(max(1, round(ttl * 1000)), _CENTURIES)
        first = self._run(_STORE, [key], [data, member_of(name), milliseconds, int(replace)])
        return first if isinstance(first, bytes) else None

    def remove(self, keys: Sequence[str], names: Sequence[Name]) -> int:
        """Remove entries and their members at once, and return how many entries there were."""
        members = [member_of(name) for name in names]
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.unlink(*keys)
            for index in self._keys:
                pipeline.zrem(index, *members)
            return int(pipeline.execute()[0])

    def count(self, bounds: Range) -> int:
        return int(self._listed(_COUNT, *bounds))

    def page(self, bounds: Range, start: int, limit: int) -> list[bytes]:
        """Members of the range, by rank."""
        members: list[bytes] = self._listed(_PAGE, *bounds, start, limit)
        return members

    def scopes(self) -> list[str]:
        """Every scope, by leaping from each one's first member to the next one's."""
        scopes: list[str] = []
        low = b""
        while True:
            found = self._listed(_SCOPES, low, _STEP)
            scopes += [_text(scope) for scope in found]
            if len(found) < _STEP:
                return scopes
            low = found[-1] + b"\0" + _TOP

    def living(self, keys: Sequence[str], members: Sequence[bytes]) -> list[bytes]:
        """Those members whose entry is there; the others are dropped from the index."""
        exist = self._run(_LIVING, keys, members)
        return [member for member, exists in zip(members, exist, strict=True) if exists]

    def _listed(self, script: str, *arguments: bytes | int) -> Any:
        while True:
            more, *reply = self._run(script, [], arguments)
            if not more:
                return reply[0]

    def _run(self, script: str, keys: Sequence[str], arguments: Sequence[bytes | int]) -> Any:
        return self._client.register_script(script)(keys=[*self._keys, *keys], args=arguments)


def member_of(name: Name) -> bytes:
    return "\0".join(name).encode("utf-8", "surrogatepass")


def name_of(member: bytes) -> Name:
    scope, _, key = _text(member).partition("\0")
    return Name(scope, key)


def range_of(scope: str | None, prefix: str = "") -> Range:
    """The members of a scope whose key has a prefix; or all members of all scopes."""
    if scope is None:
        return b"", b""
    low = member_of(Name(scope, prefix))
    return low, low + _TOP


def _text(data: bytes) -> str:
    # What is no UTF-8 is none of ours; whatever name it makes here has no entry and is dropped.
    return data.decode("utf-8", "replace")
