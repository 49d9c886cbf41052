"""What became of the steps of a run, asserted."""

import pytest

from stepflows import dumps
from stepflows.models import Run
from stepflows.results import Ok
from stepflows.testing import assert_steps, runs_in_place
from tests.testing.flows import pay

pytestmark = pytest.mark.django_db


def a_run(*steps):
    """A finished one with these steps, each a label, a key and an outcome."""
    kept = [{"label": label, "key": key, "outcome": outcome} for label, key, outcome in steps]
    outcome = dumps(Ok("done"))
    return Run.objects.create(workflow="shop", arguments=b"", state="succeeded", steps=kept, outcome=outcome)


def message(run, **asserted):
    with pytest.raises(AssertionError) as caught:
        assert_steps(run, **asserted)
    return str(caught.value)


MAPPED = [("load", None, "executed"), *[("price", f"price:{number}", "executed") for number in (1, 2, 2)]]


def test_a_performed_run_has_its_steps_told():
    """Executed at first, then cached; failed at first, then replayed."""
    with runs_in_place():
        paid, paid_before, declined, declined_before = [pay.delay(order_id) for order_id in (7, 7, 13, 13)]

    assert_steps(paid, executed=["load", "charge"], cached=[], failed=[], replayed=[])
    assert_steps(paid_before, executed=[], cached=["load", "charge"], failed=[], replayed=[])
    assert_steps(declined, executed=["load"], cached=[], failed=["charge"], replayed=[])
    assert_steps(declined_before, executed=[], cached=["load"], failed=[], replayed=["charge"])


def test_the_row_is_read_again():
    """Whatever the object was when the test got it."""
    with runs_in_place():
        run = pay.delay(7)
    stale = Run(pk=run.pk)

    assert_steps(stale, executed=["load", "charge"])

    assert stale.result == Ok("paid")


def test_what_somebody_else_made_meanwhile_is_cached():
    """This run has not executed it."""
    assert_steps(a_run(("load", "order:7", "waited")), cached=["load"], executed=[])


@pytest.mark.parametrize(
    "names",
    [
        ["load", "price", "price", "price"],
        ["price", "load", "price", "price"],
        ["load", "price", ("price", "price:1"), "price"],
        ["price", ("price", "price:2"), ("price", "price:2"), ("load", None)],
        ("price", ("price", "price:1"), "load", "price"),
    ],
    ids=str,
)
def test_steps_are_named_by_label_or_by_label_and_key(names):
    """Each as often as it occurs, in any order."""
    assert_steps(a_run(*MAPPED), executed=names)


@pytest.mark.parametrize(
    ("names", "problems"),
    [
        (["load"], ["not expected 'price' ('price:1')", *["not expected 'price' ('price:2')"] * 2]),
        (["load", *["price"] * 4], ["missing 'price'"]),
        (["load", "price", "prise", "price"], ["missing 'prise'", "not expected 'price' ('price:2')"]),
        (
            ["load", "price", "price", ("price", "price:9")],
            ["missing 'price' ('price:9')", "not expected 'price' ('price:2')"],
        ),
        ([*["price"] * 3], ["not expected 'load' without a key"]),
        ([], ["not expected 'load' without a key", *[f"not expected 'price' ('price:{n}')" for n in (1, 2, 2)]]),
    ],
    ids=str,
)
def test_what_is_missing_and_what_is_too_much_is_told(names, problems):
    """One line each."""
    text = message(a_run(*MAPPED), executed=names)

    assert [line for line in text.splitlines() if line.startswith("  executed: ")][: len(problems)] == [
        f"  executed: {problem}" for problem in problems
    ]


def test_the_message_shows_the_whole_run():
    """What it came to, and every step with what it was."""
    run = a_run(("load", "order:7", "cached"), ("charge", "order:7:charge", "executed"), ("mail", None, "running"))

    assert message(run, executed=["load"], cached=["load"]) == (
        f"Run {run.pk} of workflow 'shop' (succeeded) has other steps:\n"
        "  executed: missing 'load'\n"
        "  executed: not expected 'charge' ('order:7:charge')\n"
        "All of its steps:\n"
        "  cached: 'load' ('order:7')\n"
        "  executed: 'charge' ('order:7:charge')\n"
        "  running: 'mail' without a key\n"
        "Its result: Ok(value='done')"
    )


def test_the_message_of_a_run_that_was_not_performed_says_so():
    """The commonest reason why there are no steps."""
    run = pay.delay(7)

    text = message(run, executed=["charge"])

    assert "(queued) has other steps:" in text
    assert "All of its steps:\n  none\nIts result: None" in text


def test_what_is_not_given_is_not_looked_at():
    """A test says what it is about."""
    run = a_run(("load", None, "executed"), ("charge", None, "error"))

    assert_steps(run)
    assert_steps(run, failed=["charge"])
    assert "not expected 'load'" in message(run, executed=[])


def test_a_lone_label_is_taken_for_what_is_meant():
    """Not for a list of letters."""
    assert_steps(a_run(("load", None, "executed")), executed="load")
