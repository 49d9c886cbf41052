"""A TCP proxy that stands between a client and a server on this machine, and fails on demand."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

__all__ = ["Proxy", "running_proxy"]

T = TypeVar("T")

_HOST: Final = "127.0.0.1"
#: Makes closing a socket send a reset instead of an orderly end.
_ABRUPTLY: Final = struct.pack("ii", 1, 0)
#: Seconds; nothing that the proxy itself does takes long.
_PATIENCE: Final = 10


@dataclass(eq=False)
class _Link:
    """A client's connection, and the one to the server that belongs to it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    #: How much of the next reply gets through before the connection is reset.
    reply_left: int | None = None

    def is_spent(self, size: int) -> bool:
        """Whether it has now passed all of a reply that it may."""
        if self.reply_left is not None:
            self.reply_left -= size
        return self.reply_left is not None and self.reply_left <= 0

    def reset(self) -> None:
        _reset(self.client)
        _reset(self.server)


class Proxy:
    """Passes everything on until told otherwise.

    All methods may be called from any thread, also while connections are in use, and what they ask for holds when they
    return. Times are in seconds. A request is taken to arrive in one piece, as small ones do.
    """

    def __init__(self, target: int) -> None:
        #: The port of the server.
        self.target = target
        #: How many replies :meth:`cut_reply` has cut short.
        self.replies_cut = 0
        self._bound = _bound(0)
        #: The port to connect to. It stays this proxy's when connections are refused.
        self.port: int = self._bound.getsockname()[1]
        self._listening = False
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loses_requests = self._loses_replies = False
        self._delay = 0.0
        self._triggers: list[tuple[bytes, Callable[[_Link], object]]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._links)

    @property
    def url(self) -> str:
        return f"redis://{_HOST}:{self.port}/0"

    # --- what can go wrong

    def cut(self) -> None:
        """Reset every connection. New ones are accepted."""
        self._do(self._cut)

    def refuse(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._do(self._refuse)

    def swallow(self, *, requests: bool = True, replies: bool = True) -> None:
        """Lose the bytes of one direction or of both, as a network does that drops packets."""
        self._loses_requests, self._loses_replies = requests, replies

    def delay(self, seconds: float) -> None:
        """Hold what arrives for so long, in each direction."""
        self._delay = seconds

    def cut_reply(self, request: bytes, after: int = 0) -> None:
        """Let the next request that holds these bytes through, and reset the connection after so much of its reply."""
        self._triggers.append((request, lambda link: setattr(link, "reply_left", after)))

    def when(self, request: bytes, action: Callable[[], object]) -> None:
        """Do this once, just before the next request that holds these bytes is passed on."""
        self._triggers.append((request, lambda link: action()))

    def heal(self) -> None:
        """From now on everything is passed on again; what was lost stays lost."""
        self.swallow(requests=False, replies=False)
        self._delay = 0.0
        self._triggers.clear()
        self._do(self._listen)

    # --- its life

    def start(self) -> None:
        self._thread.start()
        self._do(self._listen)

    def stop(self) -> None:
        """Leave no thread and no socket behind."""
        self._do(self._refuse)
        self._complete(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()
        self._bound.close()

    def _do(self, action: Callable[[], T]) -> T:
        """On the proxy's own thread, so that nothing happens meanwhile."""
        if threading.current_thread() is self._thread:
            return action()

        async def act() -> T:
            return action()

        return self._complete(act())

    def _complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE)

    async def _ended(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self) -> None:
        if not self._listening:
            self._bound.listen(1000)
            self._loop.add_reader(self._bound, self._accept)
            self._listening = True

    def _refuse(self) -> None:
        if self._listening:
            self._loop.remove_reader(self._bound)
            self._bound.close()
            # Bound and not listening: nobody else gets the port, and whoever connects is refused.
            self._bound = _bound(self.port)
            self._listening = False
        self._cut()

    def _cut(self) -> None:
        for link in self._links:
            link.reset()

    # --- passing on

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            task = self._loop.create_task(self._serve(self._bound.accept()[0]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        requests, client = await asyncio.open_connection(sock=connection)
        try:
            replies, server = await asyncio.open_connection(_HOST, self.target)
        except BaseException as error:
            _reset(client)
            if not isinstance(error, OSError):
                raise
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            await asyncio.gather(self._pass_requests(requests, link), self._pass_replies(replies, link))
        finally:
            self._links.discard(link)
            link.reset()

    async def _pass_requests(self, requests: asyncio.StreamReader, link: _Link) -> None:
        async for data in _chunks(requests, link.server):
            await asyncio.sleep(self._delay)
            self._pull_triggers(data, link)
            if not self._loses_requests:
                link.server.write(data)

    async def _pass_replies(self, replies: asyncio.StreamReader, link: _Link) -> None:
        async for data in _chunks(replies, link.client):
            await asyncio.sleep(self._delay)
            if not self._loses_replies:
                link.client.write(data[: link.reply_left])
            if link.is_spent(len(data)):
                self.replies_cut += 1
                link.reset()
                break

    def _pull_triggers(self, data: bytes, link: _Link) -> None:
        for trigger in [trigger for trigger in self._triggers if trigger[0] in data]:
            self._triggers.remove(trigger)
            trigger[1](link)


@contextmanager
def running_proxy(target: int) -> Iterator[Proxy]:
    """A proxy before the server on that port of this machine, stopped at the end."""
    proxy = Proxy(target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_HOST, port))
    return bound


async def _chunks(reader: asyncio.StreamReader, other: asyncio.StreamWriter) -> Any:
    """What arrives, until the end, which is passed on."""
    with suppress(OSError):
        while data := await reader.read(65536):
            yield data
    other.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABRUPTLY)
        writer.transport.abort()
