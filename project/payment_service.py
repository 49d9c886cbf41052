"""The payment service of the example: a process of its own that speaks JSON over HTTP and counts what it was asked.

::

    POST /quotes   {"country": "NO", "weight": 800}                 200 {"price": "9.90"}
    POST /charges  {"card": "tok_7_4242", "amount": "59.80"}        201 {"id": "ch_1", "amount": "59.80"}
                   with the header Idempotency-Key                  402 {"error": "CARD_DECLINED", "message": ...}
    GET  /stats                                                     200 {"quotes": 1, "charge_requests": 1, ...}
    POST /reset                                                     200, and counts from zero again

A key that was charged before gets its old charge back, and no money moves. Cards that end in 0002 are declined.
Run it with ``python -m project.payment_service``; it needs nothing but the standard library. With ``--pause`` it takes
its time, as the real ones do.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

Answer: TypeAlias = tuple[HTTPStatus, dict[str, Any]]

DECLINED_CARDS = "0002"
BASE_PRICE = {
    "DE": Decimal("4.90"),
    "DK": Decimal("7.40"),
    "FI": Decimal("9.40"),
    "NO": Decimal("9.90"),
    "SE": Decimal("7.90"),
}
ELSEWHERE = Decimal("12.90")
PRICE_PER_KILOGRAM = Decimal("1.50")


@dataclass
class Stats:
    """What the service was asked since the last reset."""

    quotes: int = 0
    #: Requests to charge a card, whatever came of them.
    charge_requests: int = 0
    #: Those that moved money.
    cards_charged: int = 0
    declined: int = 0


@dataclass
class Till:
    """What the service knows. Its methods are the answers to requests."""

    stats: Stats = field(default_factory=Stats)
    charges: dict[str, dict[str, Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def quote(self, asked: dict[str, Any], key: str | None) -> Answer:
        kilograms = Decimal(asked["weight"]) / 1000
        price = BASE_PRICE.get(asked["country"], ELSEWHERE) + PRICE_PER_KILOGRAM * kilograms
        self.stats.quotes += 1
        return HTTPStatus.OK, {"price": str(price.quantize(Decimal("0.01")))}

    def charge(self, asked: dict[str, Any], key: str | None) -> Answer:
        card, amount = str(asked["card"]), Decimal(asked["amount"])
        if key is None:
            return HTTPStatus.BAD_REQUEST, {"error": "IDEMPOTENCY_KEY_MISSING"}
        self.stats.charge_requests += 1
        if known := self.charges.get(key):
            return HTTPStatus.OK, known
        if card.endswith(DECLINED_CARDS):
            self.stats.declined += 1
            return HTTPStatus.PAYMENT_REQUIRED, {"error": "CARD_DECLINED", "message": "The bank said no."}
        self.stats.cards_charged += 1
        self.charges[key] = {"id": f"ch_{len(self.charges) + 1}", "amount": str(amount)}
        return HTTPStatus.CREATED, self.charges[key]

    def report(self, asked: dict[str, Any], key: str | None) -> Answer:
        return HTTPStatus.OK, asdict(self.stats)

    def nowhere(self, asked: dict[str, Any], key: str | None) -> Answer:
        return HTTPStatus.NOT_FOUND, {"error": "NOT_FOUND"}

    def reset(self, asked: dict[str, Any], key: str | None) -> Answer:
        self.stats = Stats()
        return HTTPStatus.OK, {}


class Server(ThreadingHTTPServer):
    """Listens on loopback; port 0 takes any that is free. Each POST is answered after a pause (in seconds)."""

    daemon_threads = True
    #: How many clients may knock at the same moment; the five of socketserver are soon too few.
    request_queue_size = 128

    def __init__(self, port: int = 0, pause: float = 0.0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.till = Till()
        self.pause = pause

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    #: Headers and body are two writes; with Nagle's algorithm the second would wait for the first one's receipt.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.answer({"/stats": self.server.till.report})

    def do_POST(self) -> None:
        time.sleep(self.server.pause)
        till = self.server.till
        self.answer({"/quotes": till.quote, "/charges": till.charge, "/reset": till.reset})

    def answer(self, routes: dict[str, Callable[[dict[str, Any], str | None], Answer]]) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}"
        route = routes.get(self.path, self.server.till.nowhere)
        try:
            with self.server.till.lock:
                status, body = route(json.loads(asked), self.headers.get("Idempotency-Key"))
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            status, body = HTTPStatus.BAD_REQUEST, {"error": "BAD_REQUEST", "message": repr(error)}
        self.send(status, body)

    def send(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """The counts say enough; a line for every request would drown them."""


def main() -> None:
    parser = argparse.ArgumentParser(description="The payment service of the example shop.")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes any that is free")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each answer (%(default)s)")
    parser.add_argument("--url-file", type=Path, help="where to write the URL once the service listens")
    options = parser.parse_args()
    with Server(options.port, options.pause) as server:
        sys.stdout.write(f"The payment service listens on {server.url}\n")
        sys.stdout.flush()
        if options.url_file:
            # Renamed into place, so that nobody can read half of it.
            unfinished = options.url_file.with_suffix(".part")
            unfinished.write_text(server.url)
            unfinished.replace(options.url_file)
        server.serve_forever()


if __name__ == "__main__":
    main()
