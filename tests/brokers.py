"""The broker of the tests, and what lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from queue import Empty
from typing import Any

from celery import current_app
from redis import Redis


@dataclass(frozen=True)
class Broker:
    """A real one. Its messages are taken as a worker takes them."""

    client: Redis

    def messages(self, queue: str = "celery") -> list[Any]:
        """Take all messages of a queue."""
        messages = []
        with current_app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
            try:
                while True:
                    messages.append(waiting.get(block=False))
                    messages[-1].ack()
            except Empty:
                return messages

    def ids(self, queue: str = "celery") -> list[list[str]]:
        """The arguments of the messages of a queue."""
        return [message.payload[0] for message in self.messages(queue)]
