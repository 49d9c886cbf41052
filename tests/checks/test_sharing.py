"""One key for two steps."""

from __future__ import annotations

import pytest

from tests.checks.bodies import ids, said_of, says, written

HEAD = "def body(step, deps, order_id, card):\n"


def said(folder, lines):
    return said_of(written(folder, HEAD + "\n".join(f"    {line}" for line in lines)))


@pytest.mark.parametrize(
    "lines",
    [
        ['step("load", deps.load, key="order")', 'step("charge", deps.charge, key="order")'],
        ['step("load", deps.load, key=f"o:{order_id}")', 'step.all("charge", {}, key=f"o:{order_id}")'],
        ['key = f"o:{order_id}"', 'step("load", deps.load, key=key)', 'step("charge", deps.charge, key=key)'],
        ["if card:", '    step("load", deps.load, key="o")', 'step("charge", deps.charge, key="o")'],
        ["for row in card:", '    step("a", card, key=f"{row}")', '    step("b", card, key=f"{row}")'],
        ["with card:", '    step("load", deps.load, key="o")', 'return step("charge", deps.charge, key="o")'],
        ["try:", '    step("a", card, key="o")', "except OSError:", '    step("b", card, key="o")'],
    ],
)
def test_a_key_under_two_labels_is_a_warning(tmp_path, lines):
    """Naming both places."""
    (found,) = said(tmp_path, lines)
    assert found.id == "stepflows.W011"
    assert says(found, r"Workflow 'shop'.*workflows\.py:\d+.*workflows\.py:\d+.*StepKeyConflict.*own key")


@pytest.mark.parametrize(
    "lines",
    [
        ['step("load", deps.load, key="order")', 'step("load", deps.load, key="order")'],
        ['step("load", deps.load, key="a")', 'step("charge", deps.charge, key="b")'],
        ['step("load", deps.load)', 'step("charge", deps.charge, key=None)'],
        ["if card:", '    step("a", card, key="o")', "else:", '    step("b", card, key="o")'],
        ["if card:", '    step("a", card, key="o")', "if not card:", '    step("b", card, key="o")'],
        ["if card:", '    step("a", card, key="o")', "    return", 'step("b", card, key="o")'],
        ["if card:", '    return step("a", card, key="o")', 'return step("b", card, key="o")'],
        [
            "if card:",
            "    with card:",
            '        step("a", card, key="o")',
            "        raise KeyError",
            'step("b", 1, key="o")',
        ],
        ['step("a", card, key="o") if card else step("b", card, key="o")'],
        ['card and step("a", card, key="o")', 'card or step("b", card, key="o")'],
        [
            "match card:",
            "    case 1:",
            '        step("a", card, key="o")',
            "    case _:",
            '        step("b", card, key="o")',
        ],
        [
            *("try:", "    pass", "except OSError:", '    step("a", card, key="o")'),
            *("except KeyError:", '    step("b", card, key="o")', "else:", '    step("c", card, key="o")'),
        ],
        ["for row in card:", '    step("a", card, key=f"{row}")', "for row in deps:", '    step("b", 1, key=f"{row}")'],
        [
            "for row in card:",
            "    if row:",
            '        step("a", card, key="o")',
            "        break",
            "else:",
            "    step('b', 1, key='o')",
        ],
        ['step("a", card, key=f"{next(card)}")', 'step("b", card, key=f"{next(card)}")'],
        ['step("a", card, key=f"{order_id}")', "order_id += 1", 'step("b", card, key=f"{order_id}")'],
        ['step("a", card, key=card)', 'step("b", card, key=card)'],
        ['step(f"{card}", card, key="o")', 'step("b", card, key="o")'],
        ["def one(): step('a', card, key='o')", "def two(): step('b', card, key='o')", "one() if card else two()"],
    ],
)
def test_keys_that_may_not_meet_are_left_alone(tmp_path, lines):
    """In branches that exclude each other, or may; or under one label."""
    assert ids(said(tmp_path, lines)) == []
