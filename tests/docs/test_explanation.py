"""The explanation, where it can be shown or counted."""

from __future__ import annotations

import pytest

from stepflows import workflow
from stepflows.models import Run
from tests.docs.claims import runs
from tests.docs.documents import page


@pytest.mark.django_db(transaction=True)
@runs("docs/explanation.md", "Transactions")
def test_a_step_that_wrote_is_stored_when_the_block_commits(stage, blocks):
    """Not before."""
    seen = []

    @workflow("checkout", cache="locmem")
    def checkout(step, deps, order_id):
        step("write", lambda: Run.objects.create(workflow="written").workflow, key="write")
        seen.append("write" in checkout.cache)

    stage.play(blocks, checkout=checkout)
    assert seen == [False]
    assert "write" in checkout.cache


def test_the_times_it_tells_are_those_of_the_code():
    """Of the heartbeat, of a lost run, of a lost message."""
    text = page("docs/explanation.md").text
    assert f"every {Run.life() / 2.5:g} seconds that it is alive" in text
    assert f"after {Run.life():g} s it is lost" in text
    assert f"nobody has taken for {Run.grace():g} s are sent again" in text
