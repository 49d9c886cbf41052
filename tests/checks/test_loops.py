"""Keys that are the same for every item of a loop."""

from __future__ import annotations

import pytest

from tests.checks.bodies import ids, said_of, says, written

HEAD = "def body(step, deps, order, prices):\n"


def said(folder, lines):
    return said_of(written(folder, HEAD + "\n".join(f"    {line}" for line in lines)))


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        (["for item in order:", '    step("price", lambda: deps.price(item), key="price")'], "item"),
        (["for item in order:", '    step("price", partial(deps.price, item), key=f"p:{order.id}")'], "item"),
        (["for item in order:", '    step("price", lambda item=item: item, key="price")'], "item"),
        (["for item in order:", '    step.all("price", {"a": lambda: item}, key="price")'], "item"),
        (["for work in order:", '    step("price", work, key="price")'], "work"),
        (["key = 'price'", "for item in order:", '    step("price", lambda: item, key=key)'], "key|item"),
        (["for item in order:", "    found = item.find()", '    step("price", lambda: found, key="price")'], "found"),
        (["for i, item in enumerate(order):", '    step("price", lambda: item, key="price")'], "item"),
        (["for a in order:", "    for b in a.rows:", '        step("x", lambda: b, key=f"{a}")'], "b"),
        (['return [step("price", lambda: deps.price(item), key="price") for item in order]'], "item"),
        (['return {item: step("price", lambda: deps.price(item), key="p") for item in order}'], "item"),
        (['step.map("price", order, lambda item: deps.price(item), key=lambda item: "price")'], "item"),
    ],
)
def test_a_key_without_the_item_is_a_hint(tmp_path, lines, missing):
    """It names what is missing."""
    (found,) = said(tmp_path, lines)
    assert found.id == "stepflows.I003"
    assert not found.is_serious()
    assert says(found, f"Workflow 'shop'.*every '({missing})'.*a part of the key")


@pytest.mark.parametrize(
    "lines",
    [
        ["for item in order:", '    step("price", lambda: deps.price(item), key=f"price:{item}")'],
        ["for item in order:", '    step("price", lambda: deps.price(item))'],
        ["for item in order:", "    key = f'p:{item}'", '    step("price", lambda: item, key=key)'],
        ["for item in order:", '    step("price", lambda: item, key=key_of(item))'],
        ["for item in order:", '    step("price", lambda: item, key=prices.pop())'],
        ["for item in order:", '    step("price", lambda: deps.price(order), key="price")'],
        ["for i, item in enumerate(order):", '    step("price", lambda: item, key=f"price:{i}")'],
        ["for a in order:", "    for b in a.rows:", '        step("x", lambda: (a, b), key=f"{b}")'],
        ["n = 0", "for item in order:", "    n += 1", '    step("price", lambda: item, key=f"price:{n}")'],
        [
            "for way in order:",
            "    try:",
            '        return step("pay", lambda: way(), key="pay")',
            "    except OSError: pass",
        ],
        ["for way in order:", "    if way:", '        step("pay", lambda: way(), key="pay")', "        break"],
        ["for way in order:", '    step("pay", lambda: way(), key="pay", cache_errors=False)'],
        ["for way in order:", '    step("pay", lambda: way(), key="pay", **prices)'],
        ["while order:", "    item = order.pop()", '    step("price", lambda: item, key="price")'],
        ["for item in order: pass", 'step("price", lambda: order, key="price")'],
        ['return [step("price", lambda: item, key=f"price:{item}") for item in order]'],
        ['step.map("price", order, lambda item: item, key=lambda one: f"price:{one}")'],
        ['step.map("price", order, lambda item: item, key="prices")'],
        ['step.map("price", order, deps.price, key=lambda item: "price")'],
    ],
)
def test_a_key_of_the_item_is_left_alone(tmp_path, lines):
    """As is one that may be, and a loop that looks for what succeeds."""
    assert ids(said(tmp_path, lines)) == []
