"""Digests of ids: a change here makes every id of a data set unknown, and what is known again counts twice."""

from itertools import combinations
from typing import Final

from metering.store.digests import Digests, digits, shard_of
from tests.lua.ledger import SECRET

DIGESTS: Final = Digests(SECRET)


def test_the_digests_of_an_event_never_change() -> None:
    first, second = DIGESTS.ids("acme", "svc", "evt-1", ((b"scans", 5),))
    assert (digits(first), digits(second)) == (b"7970215050780133442", b"-771733160031509245")
    assert shard_of(first) == 7970215050780133442


def test_no_two_ids_or_contents_read_the_same() -> None:
    made = [
        DIGESTS.ids("acme", "", "evt-1", ((b"scans", 5),)),
        DIGESTS.ids("acme", "e", "vt-1", ((b"scans", 5),)),
        DIGESTS.ids("acm", "e", "evt-1", ((b"scans", 5),)),
        DIGESTS.ids("acme", "", "evt-1", ((b"scans", 5),), b"void"),
        DIGESTS.ids("acme", "", "evt-1", ((b"scans", 5),), b"adjust"),
    ]
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in combinations(made, 2))


def test_contents_of_one_id_share_its_first_digest_alone() -> None:
    contents = [((b"scans", 5),), ((b"scans", -5),), ((b"scans", 5), (b"scans", 5)), ((b"scans5", 5),), ()]
    made = [DIGESTS.ids("acme", "", "evt-1", content) for content in contents]
    assert len({first for first, _ in made}) == 1
    assert len({second for _, second in made}) == len(contents)


def test_the_order_of_an_events_features_is_part_of_its_content() -> None:
    one, other = (b"scans", 5), (b"calls", 1)
    assert DIGESTS.ids("acme", "", "e", (one, other))[1] != DIGESTS.ids("acme", "", "e", (other, one))[1]
