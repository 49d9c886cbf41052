"""The payment service of the example, asked over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from project import services


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("payments")
    with services.payment_service(folder) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.fixture
def till(server: httpx.Client) -> httpx.Client:
    """The service, counting from zero."""
    server.post("/reset").raise_for_status()
    return server


def charge(till: httpx.Client, card: str, key: str) -> httpx.Response:
    return till.post("/charges", json={"card": card, "amount": "59.80"}, headers={"Idempotency-Key": key})


def test_shipping_costs_more_far_away_and_by_weight(till: httpx.Client) -> None:
    """A quote depends on the country and the weight."""
    near, far, heavy = (
        till.post("/quotes", json={"country": country, "weight": weight}).json()["price"]
        for country, weight in [("DE", 1000), ("NO", 1000), ("NO", 3000)]
    )

    assert (near, far, heavy) == ("6.40", "11.40", "14.40")
    assert till.get("/stats").json()["quotes"] == 3


def test_a_card_is_charged_once_per_idempotency_key(till: httpx.Client) -> None:
    """A second request with the same key is counted, gets the same charge, and moves no money."""
    first, second = charge(till, "tok_1_4242", "once"), charge(till, "tok_1_4242", "once")

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    stats = till.get("/stats").json()
    assert (stats["charge_requests"], stats["cards_charged"]) == (2, 1)


def test_some_cards_are_declined(till: httpx.Client) -> None:
    """A card that ends in 0002 is declined, every time."""
    answers = [charge(till, "tok_1_0002", "declined") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [402, 402]
    assert answers[0].json()["error"] == "CARD_DECLINED"
    stats = till.get("/stats").json()
    assert (stats["declined"], stats["cards_charged"]) == (2, 0)


def test_a_charge_needs_an_idempotency_key(till: httpx.Client) -> None:
    """Without the header nothing is charged."""
    answer = till.post("/charges", json={"card": "tok_1_4242", "amount": "1.00"})

    assert (answer.status_code, answer.json()["error"]) == (400, "IDEMPOTENCY_KEY_MISSING")


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no json", b'{"card": "tok_1_4242", "amount": "much"}'])
def test_nonsense_is_a_bad_request(till: httpx.Client, body: bytes) -> None:
    """A body that cannot be understood is answered with 400, and the service goes on."""
    answer = till.post("/charges", content=body, headers={"Idempotency-Key": "nonsense"})

    assert answer.status_code == 400
    assert till.get("/stats").json()["charge_requests"] == 0


def test_it_can_take_its_time(tmp_path: Path) -> None:
    """An answer comes after the pause."""
    with services.payment_service(tmp_path, pause=0.3) as url, httpx.Client(base_url=url, trust_env=False) as client:
        answer = client.post("/quotes", json={"country": "DE", "weight": 1000})

    assert answer.elapsed.total_seconds() >= 0.3


def test_other_paths_are_not_found(till: httpx.Client) -> None:
    """There is nothing else to ask for."""
    assert till.get("/").status_code == 404
