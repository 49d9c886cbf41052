"""Map-likes of the user's own."""

import asyncio
import threading
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import caches

from stepflows import CacheUnavailable, CannotList, DamagedEntry, InvalidUse, NotCacheable, Ok, dumps, loads
from stepflows.caches import portal
from stepflows.caches.foreign import ForeignCache
from stepflows.engine.cache import MISSING, Busy, Damaged, Entry, Lease
from stepflows.engine.loops import running_loop
from stepflows.results import Stamp


def store(steps, key, result, *, replace=False):
    """What stands once this has been stored."""
    [standing] = steps.store([Entry(key, result, replace)])
    return standing


class Map:
    """A Map-like that notes what it was asked, and in which thread."""

    def __init__(self):
        self.kept = {}
        self.asked = []
        self.threads = set()

    def _note(self, *call):
        self.asked.append(call)
        self.threads.add(threading.current_thread())

    def get(self, key):
        self._note("get", key)
        return self.kept.get(key)

    def set(self, key, result):
        self._note("set", key)
        self.kept[key] = result

    def has(self, key):
        return key in self.kept

    def delete(self, key):
        self._note("delete", key)
        return self.kept.pop(key, None) is not None


class AsyncMap:
    """The same with async methods; notes its loops."""

    def __init__(self):
        self.map = Map()
        self.loops = []

    async def get(self, key):
        self.loops.append(asyncio.get_running_loop())
        return self.map.get(key)

    async def set(self, key, result):
        self.loops.append(asyncio.get_running_loop())
        return self.map.set(key, result)

    async def has(self, key):
        return self.map.has(key)

    async def delete(self, key):
        return self.map.delete(key)


class Raising:
    """Each method raises what it is made with."""

    def __init__(self, error):
        self.error = error

    def get(self, *args):
        raise self.error

    set = has = delete = get


class AsyncRaising(Raising):
    async def get(self, *args):
        raise self.error

    set = has = delete = get


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "load": ("user:1",),
    "load_many": (["user:1"],),
    "claim": (["user:1"], 60),
    "store": ([Entry("user:1", Ok(1))],),
}


@pytest.fixture(params=[voice + name for voice in ("", "a") for name in ARGUMENTS])
def ask(request):
    """Each of the questions that ask the object, in both voices."""
    name = request.param
    arguments = ARGUMENTS[name.removeprefix("a")]

    def asked(cache):
        method = getattr(cache, name)
        return (method if name in ARGUMENTS else async_to_sync(method))(*arguments)

    return asked


@pytest.mark.parametrize("kind", [Raising, AsyncRaising])
@pytest.mark.parametrize(
    "error", [OSError("down"), StopIteration("odd"), StopAsyncIteration("odd"), KeyError("k")], ids=repr
)
def test_whatever_a_method_raises_is_an_outage(ask, kind, error):
    """The object's exception is the cause of CacheUnavailable, and the message names the object's class and method."""
    with pytest.raises(CacheUnavailable, match=f"cache {kind.__name__} failed to get") as caught:
        ask(ForeignCache(kind(error)))
    cause = caught.value.__cause__
    # Python itself turns what ends an iteration into a RuntimeError when it leaves a coroutine.
    assert cause is not None
    assert error in (cause, cause.__cause__)


class TooFewArguments(AsyncMap):
    async def get(self):  # type: ignore[override]
        return None


def test_a_method_with_other_arguments_is_an_outage(ask):
    """A method that cannot be called so is told with the error that Python gives."""
    with pytest.raises(CacheUnavailable, match="failed to get: TypeError"):
        ask(ForeignCache(TooFewArguments()))


@pytest.mark.parametrize("error", [NotCacheable("a generator"), InvalidUse("a wrong setting")], ids=repr)
@pytest.mark.parametrize("kind", [Raising, AsyncRaising])
def test_errors_of_stepflows_pass(ask, kind, error):
    """A value that cannot be cached is no outage, nor is a mistake."""
    with pytest.raises(type(error)) as caught:
        ask(ForeignCache(kind(error)))
    assert caught.value is error


@pytest.mark.parametrize("kind", [Raising, AsyncRaising])
def test_a_damaged_entry_is_told_apart(kind):
    """DamagedEntry out of loads() is damage."""
    cache = ForeignCache(kind(DamagedEntry("cut off")))

    assert cache.load("user:1") == Damaged("cut off")
    assert async_to_sync(cache.aload)("user:1") == Damaged("cut off")


def test_what_is_no_result_is_damaged():
    """get() has to give a Result or None."""
    given = Map()
    given.kept["user:1"] = {"value": 1}

    assert ForeignCache(given).load("user:1") == Damaged("holds a dict, not a Result")


class Picky(Map):
    """Keeps numbers only."""

    def set(self, key, result):
        if not isinstance(result.value, int):
            raise NotCacheable(f"a {type(result.value).__name__}")
        super().set(key, result)


class AsyncPicky(AsyncMap):
    def __init__(self):
        super().__init__()
        self.map = Picky()


@pytest.mark.parametrize("kind", [Picky, AsyncPicky])
@pytest.mark.parametrize("voice", ["store", "astore"])
def test_what_set_refuses_is_told_in_its_place(kind, voice):
    """The other entries are stored all the same."""
    cache = ForeignCache(kind())
    ask = cache.store if voice == "store" else async_to_sync(cache.astore)
    first, refused, last = ask([Entry("a", Ok(1)), Entry("b", Ok("text")), Entry("c", Ok(3), replace=True)])

    assert (first, last) == (Ok(1), Ok(3))
    assert isinstance(refused, NotCacheable)
    assert str(refused) == str(NotCacheable("a str"))
    assert cache.load_many(["a", "b", "c"]) == [Ok(1), MISSING, Ok(3)]


def test_what_is_stored_by_now_is_the_answer_to_a_claim():
    """Whether the key is free or somebody has its lease, which stays."""
    given = Map()
    cache, other = ForeignCache(given), ForeignCache(given)
    [lease] = other.claim(["user:1"], 60)
    assert isinstance(lease, Lease)
    given.kept |= {"user:1": Ok(1), "user:2": Ok(2)}

    assert cache.claim(["user:1", "user:2"], 60) == [Ok(1), Ok(2)]
    assert cache.claim(["user:1"], 60, refresh=True) == [Busy(lease.token)]
    assert isinstance(cache.claim(["user:2"], 60, refresh=True)[0], Lease)


@pytest.mark.parametrize("voice", ["keys", "akeys"])
def test_it_cannot_list(voice):
    """A Map-like has no method that tells its keys; the error names its class."""
    method = getattr(ForeignCache(Map()), voice)
    with pytest.raises(CannotList, match="The cache Map is a cache of your own"):
        (async_to_sync(method) if voice == "akeys" else method)()


def test_a_hit_asks_once():
    """Loading is get() alone, never has() first."""
    given = Map()
    given.kept["user:1"] = Ok(1)

    assert ForeignCache(given).load("user:1") == Ok(1)
    assert given.asked == [("get", "user:1")]


def test_replacing_does_not_look_first():
    """With replace there is nothing to find out."""
    given = Map()
    store(ForeignCache(given), "user:1", Ok(1), replace=True)

    assert given.asked == [("set", "user:1")]


def test_sync_methods_do_not_block_the_loop():
    """From async code they run in a thread."""
    given = Map()

    async def body():
        await ForeignCache(given).aload("user:1")
        return threading.current_thread()

    assert asyncio.run(body()) not in given.threads


def test_async_methods_run_on_the_loop_of_async_code():
    """From async code they are awaited where they are."""
    given = AsyncMap()

    async def body():
        await ForeignCache(given).astore([Entry("user:1", Ok(1))])
        return asyncio.get_running_loop()

    loop = asyncio.run(body())
    assert given.loops == [loop, loop]


def test_async_methods_always_run_on_one_loop_for_sync_code():
    """From sync code, whatever the thread, they share one loop, so that their connections stay good."""
    given = AsyncMap()
    cache = ForeignCache(given)
    threads = [threading.Thread(target=cache.load, args=("user:1",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store(cache, "user:1", Ok(1))

    assert len(set(given.loops)) == 1
    assert given.loops[0].is_running()


def test_sync_code_of_a_run_uses_the_loop_of_its_run():
    """In a thread that works for an arun, they run on that arun's loop."""
    given = AsyncMap()

    async def body():
        loop = asyncio.get_running_loop()
        running_loop.set(loop)
        await sync_to_async(ForeignCache(given).load)("user:1")
        await asyncio.to_thread(ForeignCache(given).load, "user:1")
        return loop

    loop = asyncio.run(body())
    assert given.loops == [loop, loop]


def test_sync_code_on_a_loop_uses_the_portal():
    """Called on the loop itself, which cannot be waited for, they run on the portal."""
    given = AsyncMap()

    async def body():
        loop = asyncio.get_running_loop()
        running_loop.set(loop)
        ForeignCache(given).load("user:1")
        return loop

    assert asyncio.run(body()) not in given.loops


def test_a_loop_that_has_ended_is_not_used():
    """What is left of an arun that is over does not matter."""
    given = AsyncMap()
    ended = asyncio.new_event_loop()
    ended.close()
    token = running_loop.set(ended)
    try:
        assert ForeignCache(given).load("user:1") is MISSING
    finally:
        running_loop.reset(token)


class DjangoMap:
    """An async Map-like over Django's own async methods, which come back to a thread."""

    async def get(self, key):
        data = await caches["locmem"].aget(key)
        return None if data is None else loads(data)

    async def set(self, key, result):
        await caches["locmem"].aset(key, dumps(result))

    async def has(self, key):
        return await caches["locmem"].ahas_key(key)

    async def delete(self, key):
        return await caches["locmem"].adelete(key)


@pytest.mark.timeout(20)
def test_async_methods_that_need_the_waiting_thread():
    """A method that hands work back to the thread that waits for it does not hang."""

    async def body():
        running_loop.set(asyncio.get_running_loop())
        return await sync_to_async(ForeignCache(DjangoMap()).store)([Entry("user:1", Ok(1))])

    assert asyncio.run(body()) == [Ok(1)]
    assert ForeignCache(DjangoMap()).load("user:1") == Ok(1)


class Timed(Map):
    def set(self, key, result, ttl="none given"):
        self.asked.append(ttl)


class KeywordsOnly(Map):
    def set(self, key, result, **options):
        self.asked.append(options["ttl"])


@pytest.mark.parametrize("kind", [Timed, KeywordsOnly])
def test_a_set_that_takes_a_ttl_is_given_one(kind):
    """It gets the seconds that are left, or None for ever."""
    given = kind()
    now = time.time()
    cache = ForeignCache(given)
    store(cache, "user:1", Ok(1, stamp=Stamp(stored_at=now, expires_at=now + 60)), replace=True)
    store(cache, "user:2", Ok(1, stamp=Stamp(stored_at=now)), replace=True)
    store(cache, "user:3", Ok(1), replace=True)

    assert 50 < given.asked[0] <= 60
    assert given.asked[1:] == [None, None]


def test_a_set_without_a_signature():
    """Where it cannot be told what set() takes, it is given the two arguments."""

    class Odd(Map):
        @property
        def set(self):
            kept = self.kept

            class Setter:
                __signature__ = "none"

                def __call__(self, key, result):
                    kept[key] = result

            return Setter()

    given = Odd()
    store(ForeignCache(given), "user:1", Ok(1), replace=True)

    assert given.kept == {"user:1": Ok(1)}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["get", "set", "has"], r"it has no delete\(\)\."),
        (["get"], r"it has no set\(\) and no has\(\) and no delete\(\)\."),
    ],
)
def test_an_object_without_the_methods(names, message):
    """The error names the class and each method that is missing."""
    kind = type("Half", (), dict.fromkeys(names, lambda self, *args: None))

    with pytest.raises(InvalidUse, match=f"A Half cannot be a cache: {message}"):
        ForeignCache(kind())


def test_it_says_what_it_is():
    """The repr names the object's class."""
    assert repr(ForeignCache(Map())) == "ForeignCache(Map)"


def test_the_portal_ends_what_nobody_waits_for():
    """When the waiting thread is struck, as by a time limit, the work on the loop is cancelled."""
    cancelled = threading.Event()
    started = threading.Event()

    async def work():
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    class Struck(BaseException):
        pass

    class Future:
        """The wait of the real future, struck once the work is under way."""

        def __init__(self, future):
            self.future = future

        def result(self):
            started.wait(10)
            raise Struck

        def cancel(self):
            self.future.cancel()

    real = asyncio.run_coroutine_threadsafe
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Struck):
        patch.setattr(asyncio, "run_coroutine_threadsafe", lambda *args: Future(real(*args)))
        portal.run(work)

    assert cancelled.wait(10)
