"""How `metering tail` shows an event: one line."""

from typing import Any

import orjson

from metering.console import harmless
from metering.store.raw_log import shown
from metering.store.tail import Seen


def line_of(seen: Seen, *, json: bool) -> str:
    """One event for people, or with `json` as `GET /v1/events` shows it."""
    entry, org_id = seen
    view = shown(entry, org_id)
    return orjson.dumps(view).decode() if json else harmless("  ".join(_words(view)))


def _words(view: dict[str, Any]) -> list[str]:
    counted, asked = view["recorded"], view["quantity"]
    units = f"+{counted}" if counted == asked else f"+{counted} of {asked}"
    more = [f"overage {view['overage']}"] if view["overage"] else []
    more += [f"actor {view['actor']}"] if view["actor"] else []
    whose = view["org_id"] or "(erased)"
    return [view["at"], whose, view["feature"], units, f"= {view['current_usage']}", view["event_id"] or "-", *more]
