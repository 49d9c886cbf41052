r"""What the Redis server does in one go, in its own language, so that no two callers can interfere.

Every key that a script uses is among its ``KEYS``; the first three of those that know of the index are the index, its
companion of expiries and its marker. Each does the same when it is sent twice because the first reply was lost.
"""

from __future__ import annotations

from typing import Final

from stepflows.caches.connection import Script

__all__ = [
    "CLAIM",
    "COMPLETE",
    "COUNT",
    "FINISH",
    "HEADS",
    "LIST",
    "LIVING",
    "LOOK",
    "PAGE",
    "RELEASE",
    "REMOVE",
    "RENEW",
    "SCOPES",
    "SURVEY",
    "WRITE",
]

# For each name its entry and its lease. Replies the entry, or 1 when the lease is granted, or in a list who has it.
# What is there and no string is foreign, and no entry.
CLAIM: Final = Script("""
local token, milliseconds, force = ARGV[1], ARGV[2], ARGV[3] == '1'
local answers = {}
for i = 1, #KEYS, 2 do
    local found = not force and redis.pcall('GET', KEYS[i])
    if type(found) == 'string' then
        answers[#answers + 1] = found
    else
        local holder = redis.call('GET', KEYS[i + 1])
        if holder and holder ~= token then
            answers[#answers + 1] = {holder}
        else
            redis.call('SET', KEYS[i + 1], token, 'PX', milliseconds)
            answers[#answers + 1] = 1
        end
    end
end
return answers
""")

# The lease that is nobody's is its last holder's again.
RENEW: Final = Script("""
local held = {}
for i, key in ipairs(KEYS) do
    local holder = redis.call('GET', key)
    if not holder or holder == ARGV[i + 1] then
        redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1])
        held[i] = 1
    else
        held[i] = 0
    end
end
return held
""")

RELEASE: Final = Script("""
for i, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[i] then redis.call('DEL', key) end
end
""")

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_PURGE: Final = (
    _NOW
    + """
local function purge(most)
    local past = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.format('%.0f', now), 'LIMIT', 0, most)
    if #past > 0 then
        redis.call('ZREM', KEYS[1], unpack(past))
        redis.call('ZREM', KEYS[2], unpack(past))
    end
    return #past == most
end
"""
)

# For each name its entry and its lease; and its data, member, milliseconds to live or 0, token, and whether it
# replaces and yields. Replies what was there first, or 1: written, 2: written too late, 3: lost. An index that begins
# is complete, unless there is the mark that there was one before.
WRITE: Final = Script(
    _PURGE
    + r"""
local answers, listed, ends = {}, {}, {}
for i = 1, #ARGV / 6 do
    local entry, lease = KEYS[2 * i + 2], KEYS[2 * i + 3]
    local data, member, ttl, token, replace, yields = unpack(ARGV, 6 * i - 5, 6 * i)
    local holder = (token ~= '' or yields == '1') and redis.call('GET', lease)
    local found = replace == '0' and redis.pcall('GET', entry)
    if type(found) == 'string' then
        answers[i] = found
    elseif yields == '1' and holder and holder ~= token then
        answers[i] = 3
    else
        listed[#listed + 1] = '0'
        listed[#listed + 1] = member
        if ttl == '0' then
            redis.call('SET', entry, data)
            ends[member] = false
        else
            redis.call('SET', entry, data, 'PX', ttl)
            ends[member] = string.format('%.0f', now + ttl)
        end
        answers[i] = (token == '' or holder == token) and 1 or 2
    end
    if token ~= '' and holder == token and type(answers[i]) == 'number' then redis.call('DEL', lease) end
end
if #listed > 0 then
    if redis.call('EXISTS', KEYS[1]) == 0 and redis.call('SET', KEYS[3], '1', 'NX') then
        redis.call('ZADD', KEYS[1], 0, '\255')
    end
    redis.call('ZADD', KEYS[1], unpack(listed))
end
local forever, passing = {}, {}
for member, time in pairs(ends) do
    if time then
        passing[#passing + 1] = time
        passing[#passing + 1] = member
    else
        forever[#forever + 1] = member
    end
end
if #forever > 0 then redis.call('ZREM', KEYS[2], unpack(forever)) end
if #passing > 0 then
    redis.call('ZADD', KEYS[2], unpack(passing))
    purge(math.min(#passing / 2 * 5, 500))
end
return answers
"""
)

# Replies how many entries there were.
REMOVE: Final = Script("""
local there = redis.call('UNLINK', unpack(KEYS, 4))
redis.call('ZREM', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[2], unpack(ARGV))
return there
""")

# Everything that lists begins so, and replies with a false start while there is more to purge.
_PURGED: Final = _PURGE + "if purge(1000) then return {1} end\n"

COUNT: Final = Script(
    _PURGED
    + """
local below = redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[1])
return {0, redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[2]) - below}
"""
)

# By rank, so that a page far in costs as much as the first one.
PAGE: Final = Script(
    _PURGED
    + """
local first = redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[1]) + tonumber(ARGV[3])
local stop = math.min(first + tonumber(ARGV[4]), redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[2]))
if first >= stop then return {0, {}} end
return {0, redis.call('ZRANGE', KEYS[1], first, stop - 1)}
"""
)

SCOPES: Final = Script(
    _PURGED
    + r"""
local found, low = {}, '[' .. ARGV[1]
for i = 1, tonumber(ARGV[2]) do
    local member = redis.call('ZRANGEBYLEX', KEYS[1], low, '(\255', 'LIMIT', 0, 1)[1]
    if not member then break end
    found[i] = string.sub(member, 1, (string.find(member, '\0', 1, true) or #member + 1) - 1)
    low = '[' .. found[i] .. '\1'
end
return {0, found}
"""
)

# From a member on, at most so many scopes and how many members each has; of the wanted ones among them, how many
# members have the prefix, and some of those, after leaving out so many. Replies the member to go on from too, if any,
# and how many are still to be left out.
SURVEY: Final = Script(
    _PURGED
    + r"""
local function below(member) return redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. member) end
local low, most, every, plain, prefix = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4], ARGV[5]
local skip, limit = tonumber(ARGV[6]), tonumber(ARGV[7])
local scopes, sizes, count, page = {}, {}, 0, {}
local rank, total = below(low), below('\255')
while rank < total and #scopes < most do
    local member = redis.call('ZRANGE', KEYS[1], rank, rank)[1]
    local scope = string.sub(member, 1, (string.find(member, '\0', 1, true) or #member + 1) - 1)
    local first, stop = rank, math.max(below(scope .. '\1'), rank + 1)
    low, rank = scope .. '\1', stop
    scopes[#scopes + 1], sizes[#sizes + 1] = scope, stop - first
    if every or scope == plain or string.sub(scope, 1, #plain + 1) == plain .. '@' then
        if prefix ~= '' then
            first = below(scope .. '\0' .. prefix)
            stop = below(scope .. '\0' .. prefix .. '\255')
        end
        count = count + stop - first
        if first + skip < stop and #page < limit then
            local last = math.min(first + skip + limit - #page, stop) - 1
            for _, found in ipairs(redis.call('ZRANGE', KEYS[1], first + skip, last)) do page[#page + 1] = found end
        end
        skip = math.max(0, skip - (stop - first))
    end
end
local complete = redis.call('ZSCORE', KEYS[1], '\255') and 1 or 1 - redis.call('EXISTS', KEYS[3])
return {0, {scopes, sizes, count, page, complete, rank < total and low or false, skip}}
"""
)

# Looks and drops in one, so that an entry stored meanwhile stays listed.
LIVING: Final = Script("""
local living = {}
for i, member in ipairs(ARGV) do
    living[i] = redis.call('EXISTS', KEYS[i + 3])
    if living[i] == 0 then
        redis.call('ZREM', KEYS[1], member)
        redis.call('ZREM', KEYS[2], member)
    end
end
return living
""")

# The first bytes of each; an empty list for what is no string.
HEADS: Final = Script("""
local heads = {}
for i, key in ipairs(KEYS) do
    local head = redis.pcall('GETRANGE', key, 0, ARGV[1])
    heads[i] = type(head) == 'string' and head or {}
end
return heads
""")

# The same for entries that are listed by these members. The members of those that are gone are dropped.
LOOK: Final = Script("""
local heads = {}
for i = 2, #ARGV do
    local key = KEYS[i + 2]
    local head = redis.pcall('GETRANGE', key, 0, ARGV[1])
    heads[i - 1] = type(head) == 'string' and head or {}
    if head == '' and redis.call('EXISTS', key) == 0 then
        heads[i - 1] = false
        redis.call('ZREM', KEYS[1], ARGV[i])
        redis.call('ZREM', KEYS[2], ARGV[i])
    end
end
return heads
""")

COMPLETE: Final = Script(r"""
return redis.call('ZSCORE', KEYS[1], '\255') and 1 or 1 - redis.call('EXISTS', KEYS[3])
""")

# Lists those entries that are still there.
LIST: Final = Script(
    _NOW
    + """
for i, member in ipairs(ARGV) do
    local left = redis.call('PTTL', KEYS[i + 3])
    if left ~= -2 then redis.call('ZADD', KEYS[1], 0, member) end
    if left >= 0 then redis.call('ZADD', KEYS[2], string.format('%.0f', now + left), member) end
    if left == -1 then redis.call('ZREM', KEYS[2], member) end
end
"""
)

FINISH: Final = Script(r"""
redis.call('ZADD', KEYS[1], 0, '\255')
redis.call('SET', KEYS[3], '1')
""")
