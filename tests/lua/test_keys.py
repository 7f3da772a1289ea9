"""The key layout, as literal text: a change here is a migration of every data set."""

import pytest

from metering.store.keys import DATASET, SHAPES, Keys, Shape, key_id_in, key_partition

KEYS = Keys(64)

LITERALS = {
    "dataset": (DATASET, "{meta}:dataset"),
    "record": (KEYS.record("acme"), "{p3e}:o:acme"),
    "profile": (KEYS.profile("acme"), "{p3e}:p:acme"),
    "trail": (KEYS.trail("acme"), "{p3e}:a:acme"),
    "archive": (KEYS.archive("acme", 1706745600000), "{p3e}:u:acme:1706745600000"),
    "history": (KEYS.history("acme", "scans", "20240229"), "{p3e}:h:acme:scans:20240229"),
    "seen": (KEYS.seen("acme", "202402", "8", 255), "{p3e}:d:acme:202402:8:ff"),
    "minted": (KEYS.minted("acme", 28475000), "{p3e}:m:acme:28475000"),
    "kept": (KEYS.kept("0f" * 15 + "7e"), "{p3e}:k:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f7e"),
    "hold": (KEYS.hold("acme", "res_1"), "{p3e}:r:acme:res_1"),
    "holds": (KEYS.holds("acme"), "{p3e}:e:acme"),
    "windows": (KEYS.windows("acme"), "{p3e}:w:acme"),
    "minutes": (KEYS.minutes("acme", "scans", "2026112305"), "{p3e}:i:acme:scans:2026112305"),
    "groups": (KEYS.groups("acme", "scans", "actor", "20261123"), "{p3e}:g:acme:scans:actor:20261123"),
    "values": (KEYS.values("acme", "actor", "202611"), "{p3e}:v:acme:actor:202611"),
    "expiring": (KEYS.shared("expiring", 62), "{p3e}:expiring"),
    "api_key": (KEYS.api_key("03e0123456789abcdef"), "{p3e}:c:03e0123456789abcdef"),
    "ended_key": (KEYS.ended_key("03e0123456789abcdef"), "{p3e}:x:03e0123456789abcdef"),
    "window": (KEYS.window("acme", "a2" * 26), "{p3e}:b:a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2"),
    "lane": (KEYS.lane("0f" * 15 + "7e"), "{p3e}:l:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f7e"),
    "journal": (KEYS.journal("0f" * 15 + "7e", "20261123"), "{p3e}:q:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f7e:20261123"),
    "customers": (KEYS.customers("0f" * 15 + "7e"), "{p3e}:f:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f7e"),
    "received": (KEYS.received("evt_1"), "{p0d}:n:evt_1"),
    "applied": (KEYS.applied("acme", "evt_1"), "{p3e}:z:acme:evt_1"),
    "pool": (KEYS.pool("acme"), "{p3e}:y:acme"),
    "grants": (KEYS.grants("acme"), "{p3e}:s:acme"),
    "burned": (KEYS.burned("acme"), "{p3e}:j:acme"),
    "ledger": (KEYS.ledger("acme"), "{p3e}:t:acme"),
    "topup": (KEYS.topup("acme"), "{p3e}:0:acme"),
    "lapsing": (KEYS.shared("lapsing", 62), "{p3e}:lapsing"),
    "topups": (KEYS.shared("topups", 62), "{p3e}:topups"),
    "recharging": (KEYS.shared("recharging", 62), "{p3e}:recharging"),
    "charging": (KEYS.shared("charging", 62), "{p3e}:charging"),
    "outbox": (KEYS.shared("outbox", 1), "{p01}:outbox"),
    "settled": (KEYS.shared("settled", 1), "{p01}:settled"),
    "dead_windows": (KEYS.shared("dead_windows", 1), "{p01}:dead_windows"),
    "unbilled": (KEYS.shared("unbilled", 1), "{p01}:unbilled"),
    "inbox": (KEYS.shared("inbox", 1), "{p01}:inbox"),
    "dead_inbox": (KEYS.shared("dead_inbox", 1), "{p01}:dead_inbox"),
    "grace": (KEYS.shared("grace", 0), "{p00}:grace"),
    "frozen": (KEYS.shared("frozen", 0), "{p00}:frozen"),
    "stripe": (KEYS.shared("stripe", 0), "{p00}:stripe"),
    "shadow": (KEYS.shared("shadow", 0), "{p00}:shadow"),
    "shadowing": (KEYS.shared("shadowing", 0), "{p00}:shadowing"),
    "dirty": (KEYS.shared("dirty", 0), "{p00}:dirty"),
    "crossings": (KEYS.shared("crossings", 1), "{p01}:crossings"),
    "totals": (KEYS.shared("totals", 10), "{p0a}:totals"),
    "orgs": (KEYS.shared("orgs", 26), "{p1a}:orgs"),
    "plans": (KEYS.shared("plans", 62), "{p3e}:plans"),
    "due": (KEYS.shared("due", 63), "{p3f}:due"),
    "spent": (KEYS.shared("spent", 63), "{p3f}:spent"),
    "top": (KEYS.shared("top", 63), "{p3f}:top"),
    "events": (KEYS.shared("events", 26), "{p1a}:events"),
    "queue": (KEYS.shared("queue", 26), "{p1a}:queue"),
    "dead": (KEYS.shared("dead", 26), "{p1a}:dead"),
    "api_keys": (KEYS.shared("api_keys", 63), "{p3f}:api_keys"),
    "epoch": (KEYS.shared("epoch", 0), "{p00}:epoch"),
    "denied": (KEYS.shared("denied", 0), "{p00}:denied"),
    "erased": (KEYS.shared("erased", 62), "{p3e}:erased"),
    "erasing": (KEYS.shared("erasing", 62), "{p3e}:erasing"),
    "eraser": (KEYS.shared("eraser", 0), "{p00}:eraser"),
    "clock": (KEYS.shared("clock", 63), "{p3f}:clock"),
}

BY_NAME = {shape.name: shape for shape in SHAPES}

ORG_KEYS = ("record", "profile", "trail", "archive", "history", "seen", "minted", "minutes", "groups")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_text_of_a_key_never_changes(shape: Shape) -> None:
    made, literal = LITERALS[shape.name]
    assert made == literal


@pytest.mark.parametrize("name", LITERALS)
def test_a_key_is_read_back_as_its_own_shape_and_as_no_other(name: str) -> None:
    literal = LITERALS[name][1]
    assert [shape.name for shape in SHAPES if shape.regex().fullmatch(literal)] == [name]


@pytest.mark.parametrize("name", LITERALS)
def test_the_parts_of_a_key_put_into_its_pattern_give_the_key_again(name: str) -> None:
    literal, text = LITERALS[name][1], BY_NAME[name].pattern
    match = BY_NAME[name].regex().fullmatch(literal)
    assert match is not None
    for part, value in match.groupdict().items():
        text = text.replace(f"<{part}>", value)
    assert text == literal


@pytest.mark.parametrize("name", ORG_KEYS)
def test_every_key_of_an_organisation_has_the_tag_of_its_partition(name: str) -> None:
    match = BY_NAME[name].regex().fullmatch(LITERALS[name][1])
    assert match is not None
    assert match["org"] == "acme"
    assert int(match["p"], 16) == KEYS.partition("acme")


def test_an_organisation_whose_name_looks_like_another_keys_part_keeps_its_own_keys() -> None:
    record = BY_NAME["record"].regex().fullmatch(KEYS.record("o.p-a_u"))
    assert record is not None
    assert record["org"] == "o.p-a_u"


@pytest.mark.parametrize(
    ("org", "in_4096", "in_64", "in_2"),
    [
        ("acme", 2622, 62, 0),
        ("org-123", 2502, 6, 0),
        ("a", 3651, 3, 1),
        ("A.b-c_9", 2769, 17, 1),
        ("x" * 64, 3090, 18, 0),
    ],
)
def test_the_partition_of_an_organisation_never_changes(org: str, in_4096: int, in_64: int, in_2: int) -> None:
    found = [Keys(partitions).partition(org) for partitions in (4096, 64, 2, 1)]
    assert found == [in_4096, in_64, in_2, 0]


def test_organisations_spread_evenly_over_the_partitions() -> None:
    sizes = [0] * 64
    for number in range(6400):
        sizes[KEYS.partition(f"org-{number}")] += 1
    assert min(sizes) > 60
    assert max(sizes) < 140


@pytest.mark.parametrize("partitions", [1, 2, 64, 4096])
def test_a_power_of_two_is_a_number_of_partitions(partitions: int) -> None:
    assert Keys(partitions).partitions == partitions


@pytest.mark.parametrize("partitions", [-64, -1, 0, 3, 63, 65, 4095, 8192])
def test_any_other_number_of_partitions_is_refused(partitions: int) -> None:
    with pytest.raises(ValueError, match=f"power of two up to 4096, not {partitions}"):
        Keys(partitions)


def test_the_highest_partition_of_the_largest_layout_has_a_key_of_its_shape() -> None:
    key = Keys(4096).shared("totals", 4095)
    assert key == "{pfff}:totals"
    assert BY_NAME["totals"].regex().fullmatch(key)


@pytest.mark.parametrize(("partition", "tag"), [(0, "{p00}"), (63, "{p3f}"), (255, "{pff}"), (4095, "{pfff}")])
def test_the_id_of_an_api_key_says_its_partition(partition: int, tag: str) -> None:
    key_id = key_id_in(partition, "0123456789abcdef")
    assert key_partition(key_id) == partition
    assert Keys(4096).api_key(key_id) == f"{tag}:c:{key_id}"
    assert Keys(4096).ended_key(key_id) == f"{tag}:x:{key_id}"
