"""What is told to whom: each event to every endpoint that asked for it, tried again until it is taken.

https://docs.stripe.com/webhooks#retries. Endpoints are those of /v1/webhook_endpoints (snapshots) and destinations of
/v2/core/event_destinations (either kind). What is wrong on purpose is told by `Switches`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from metering.billing.sandbox.db import Db, Obj

SNAPSHOT: Final = "event"
THIN: Final = "v2.core.event"
"""The two kinds of events, as `object` names them and the database keeps them."""

KIND: Final = "sandbox.delivery"
WAITING: Final = "waiting"
DONE: Final = "done"

RETRIES_S: Final = (10, 60, 300, 1800, 7200, 18_000, 36_000, 43_200, 43_200, 43_200, 43_200, 23_030)
"""Pauses between attempts, growing, three days in all. Stripe says how long it tries, not when."""


@dataclass(frozen=True, slots=True)
class Target:
    """Who is told, at which address, and how it is signed."""

    id: str
    url: str
    secrets: tuple[str, ...]
    thin: bool
    events: tuple[str, ...]

    def wants(self, event: Obj) -> bool:
        """Whether an event of this kind was asked for."""
        thin = event["object"] == THIN
        return thin == self.thin and ("*" in self.events or event["type"] in self.events)


def targets(db: Db) -> Iterator[Target]:
    """Every enabled endpoint."""
    for row in db.all("webhook_endpoint"):
        if row["status"] == "enabled":
            yield Target(row["id"], row["url"], _secrets(db, row), thin=False, events=tuple(row["enabled_events"]))
    for row in db.all("v2.core.event_destination"):
        place = row.get("webhook_endpoint")
        if row["status"] == "enabled" and place:
            thin = row["event_payload"] == "thin"
            yield Target(row["id"], place["url"], _secrets(db, row), thin, tuple(row["enabled_events"]))


def post(db: Db, event: Obj, now_s: int) -> int:
    """Put an event into the post for everybody who asked for it; how many that are."""
    wanted = [target for target in targets(db) if target.wants(event)]
    for target in wanted:
        hand_in(db, event, target, now_s)
    return len(wanted)


def hand_in(db: Db, event: Obj, target: Target, now_s: int, *, met: bool = False) -> None:
    """Put an event into the post for one of them; `met` spares it the switches."""
    delivery = {
        "id": db.new_id("wd"),
        "event": event["id"],
        "type": event["type"],
        "endpoint": target.id,
        "url": target.url,
        "thin": target.thin,
        "state": WAITING,
        "attempts": 0,
        "due": now_s,
        "answers": [],
        "met": met,
        "held": False,
        "spoilt": [],
    }
    db.put(KIND, delivery, parent=WAITING, at=now_s)


def keep(db: Db, delivery: Obj) -> None:
    """Keep what became of one."""
    waiting = delivery["state"] == WAITING
    db.put(KIND, delivery, parent=WAITING if waiting else DONE, at=delivery["due"] if waiting else 0)


def waiting(db: Db, until_s: int | None = None) -> list[Obj]:
    """Those that wait, of all or due up to a moment, in the order in which they are due."""
    rows = db.of(KIND, WAITING) if until_s is None else db.of(KIND, WAITING, end=until_s + 1)
    return sorted(rows, key=lambda row: row["due"])


def next_due(db: Db) -> int | None:
    """When the next attempt is due. What is held back for a later one to come first is not due."""
    return min((row["due"] for row in waiting(db) if not row.get("held")), default=None)


def body_of(event: Obj) -> Obj:
    """The event as it goes out: a thin one without its data."""
    if event["object"] == THIN:
        return {name: value for name, value in event.items() if name != "data"}
    return {**event, "pending_webhooks": 1}


def twin(db: Db, event: Obj) -> Obj:
    """The same change told by a second event with an id of its own."""
    thin = event["object"] == THIN
    again = {**event, "id": db.new_id("evt_test" if thin else "evt")}
    db.put(event["object"], again, at=0 if thin else event["created"])
    return again


def _secrets(db: Db, row: Obj) -> tuple[str, ...]:
    """What an endpoint's events are signed with; two while one is rolled."""
    found: dict[str, Any] = db.get("sandbox.secret", row["id"]) or {}
    return tuple(found.get("secrets") or ([row["secret"]] if row.get("secret") else []))
