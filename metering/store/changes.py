"""What a change of an organisation leaves to be seen: its entry in the trail, and whether it is there."""

import json
from dataclasses import replace

from metering.store.org import Org, override_entry


def is_written(tried: Org, found: Org) -> bool:
    """Whether the store holds what a change tried to write; `updated` is the script's own."""
    profile = replace(found.profile, updated_ms=tried.profile.updated_ms)
    return (found.claim, found.plan, profile) == (tried.claim, tried.plan, tried.profile)


def trail_entry(before: Org | None, after: Org, actor: str) -> list[str]:
    """The trail's words for a change: type first, then who and what."""
    if before is None:
        return ["org_created", "plan", after.plan, "actor", actor]
    kind = "plan_changed" if before.plan != after.plan else "org_updated"
    entry = [kind, "actor", actor, "plan_before", before.plan, "plan", after.plan]
    if before.profile.overrides != after.profile.overrides:
        entry += ["overrides", _entries(after)]
    if before.profile.stripe_customer_id != after.profile.stripe_customer_id:
        entry += ["stripe_customer", "changed"]
    return entry


def _entries(org: Org) -> str:
    return json.dumps({name: override_entry(o) for name, o in sorted(org.profile.overrides.items())})
