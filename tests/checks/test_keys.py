"""Keys that no later run finds again."""

from __future__ import annotations

import pytest

from tests.checks.bodies import ids, said_of, says, written

BODY = """
async def body(step, deps, order_id: int, given, name: str):
    {before}
    return step("charge", lambda: 1, key={key})
"""


def said(folder, key, before="pass"):
    return said_of(written(folder, BODY.format(key=key, before=before)))


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ('f"charge:{time.time()}"', "time.time()"),
        ("str(time.time_ns())", "time.time_ns()"),
        ('"charge:%s" % time.monotonic()', "time.monotonic()"),
        ('"charge:%s:%s" % (order_id, time.time())', "time.time()"),
        ('"charge:{}".format(time.time())', "time.time()"),
        ('f"charge:{int(time.time())}"', "time.time()"),
        ('f"charge:{time.time() - 5}"', "time.time()"),
        ('f"charge:{datetime.now()}"', "datetime.now()"),
        ('f"charge:{dt.datetime.utcnow().isoformat()}"', "dt.datetime.utcnow()"),
        ('f"charge:{datetime.today()}"', "datetime.today()"),
        ('f"charge:{timezone.now().timestamp()}"', "timezone.now()"),
        ('f"charge:{datetime.now(tz=dt.UTC)}"', "datetime.now(tz=dt.UTC)"),
        ('f"charge:{random.random()}"', "random.random()"),
        ('f"charge:{random.randint(1, 9)}"', "random.randint(1, 9)"),
        ('"-".join(["charge", secrets.token_hex(4)])', "secrets.token_hex(4)"),
        ('f"charge:{secrets.choice(given)}"', "secrets.choice(given)"),
        ("os.urandom(8).hex()", "os.urandom(8)"),
        ("str(uuid.uuid1())", "uuid.uuid1()"),
        ("uuid4().hex[:8]", "uuid4()"),
        ('f"charge:{uuid4().int % 100:03}"', "uuid4()"),
        ("hashlib.sha256(str(uuid4()).encode()).hexdigest()", "uuid4()"),
        ("get_random_string(8)", "get_random_string(8)"),
        ('f"charge:{id(given)}"', "id(given)"),
        ('f"charge:{hash(given)}"', "hash(given)"),
        ('f"charge:{hash((order_id, name)) % 8}"', "hash((order_id, name))"),
    ],
)
def test_a_key_that_is_another_each_time_is_a_warning(tmp_path, key, shown):
    """It names the workflow, the place, the step, what is wrong in its key, and what is better."""
    (found,) = said(tmp_path, key)
    assert found.id == "stepflows.W009"
    assert f"step 'charge' is made from {shown}, which" in found.msg
    assert says(found, r"Workflow 'shop' \(.*workflows\.py:\d+\).*order_id")


@pytest.mark.parametrize(
    "before",
    [
        "token = uuid4()",
        "drawn = uuid4(); token = f'{drawn}'",
        "import uuid as u; token = u.uuid4()",
        "from uuid import uuid4 as another; token = another()",
        "draw = uuid.uuid4; token = draw()",
        "token: str = str(uuid4())",
    ],
)
def test_what_a_key_is_made_from_may_have_a_name(tmp_path, before):
    """Or two."""
    assert ids(said(tmp_path, 'f"charge:{token}"', before)) == ["stepflows.W009"]


@pytest.mark.parametrize(
    "key",
    [
        '"charge"',
        'f"charge:{order_id}"',
        "step.run_id",
        'f"rate:{date.today()}"',
        'f"rate:{timezone.localdate()}"',
        'f"rate:{datetime.now().date()}"',
        'f"rate:{timezone.now():%Y-%m-%d}"',
        '"rate:{:%Y-%m-%d}".format(timezone.now())',
        'timezone.now().strftime("rate:%Y")',
        'f"rate:{timezone.now().isoformat()[:10]}"',
        'f"rate:{datetime.now().replace(minute=0, second=0, microsecond=0)}"',
        'f"rate:{int(time.time() // 3600)}"',
        'f"rate:{(datetime.now() - given).days}"',
        'f"charge:{uuid.uuid5(uuid.NAMESPACE_DNS, name)}"',
        "hashlib.sha256(name.encode()).hexdigest()",
        "deps.key_for(uuid4())",
        "given(time.time())",
        'f"charge:{hash(order_id)}"',
        'f"charge:{given.random()}"',
        "given or uuid4().hex",
        "None",
    ],
)
def test_a_key_that_may_be_the_same_again_is_left_alone(tmp_path, key):
    """Also one for an hour or for a day, and one of which nothing is certain."""
    assert said(tmp_path, key) == []


@pytest.mark.parametrize(
    "before",
    [
        "token = step('token', lambda: uuid4().hex, key=f'{order_id}:token')",
        "token = given; token = uuid4()",
        "uuid4 = given; token = uuid4()",
        "token = [uuid4() for token in given]",
        "token = given(uuid4)",
        "token = None",
        "match given:\n        case {'a': 1, **token}: pass",
    ],
)
def test_a_name_that_may_stand_for_something_else_is_left_alone(tmp_path, before):
    """Above all what a step has returned, because that is what is stored."""
    assert said(tmp_path, 'f"charge:{token}"', before) == []


def test_a_key_of_each_item_is_read_as_well(tmp_path):
    """That of step.map, and those of step.all and step.run."""
    body = """
    def body(order, deps):
        order.map("a", [1], lambda item: item, key=lambda item: f"{item}:{uuid4()}")
        order.all("b", {"x": lambda: 1}, key=str(uuid4()))
        order.run("c", lambda: 1, key=str(uuid4()))
    """
    assert ids(said_of(written(tmp_path, body))) == ["stepflows.W009"] * 3


@pytest.mark.parametrize("key", ['f"charge:{given!r}"', '"charge:" + repr(given)', 'f"charge:{ascii(given)}"'])
def test_the_repr_of_an_argument_is_a_hint(tmp_path, key):
    """It may be good."""
    (found,) = said(tmp_path, key)
    assert found.id == "stepflows.I002"
    assert not found.is_serious()
    assert says(found, "given.*address.*primary key")


@pytest.mark.parametrize(
    ("key", "before"),
    [
        ('f"charge:{name!r}"', "pass"),
        ('f"charge:{order_id!r}"', "pass"),
        ('f"charge:{given.name!r}"', "pass"),
        ('f"charge:{sorted(given)!r}"', "pass"),
        ('f"charge:{basket!r}"', "basket = step('load', lambda: given, key='basket')"),
        ('f"charge:{basket!r}"', "basket = 5"),
        ('f"charge:{basket!r}"', "basket = await step('load', lambda: given)"),
    ],
)
def test_the_repr_of_what_is_plain_is_left_alone(tmp_path, key, before):
    """Texts, numbers, attributes and what a step returned."""
    assert said(tmp_path, key, before) == []
