"""An organisation as the store holds it: parsed whole, never half."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from metering.store.claim import Claim
from metering.store.fields import FieldCodec
from plans.catalogue import KEEP, Override
from plans.limits import OnLimit, Rule
from plans.periods import Period, Reset

_MODE_OF: Final = {OnLimit.OVERAGE: "o", OnLimit.BLOCK: "b", OnLimit.CAP: "c"}
_ON_LIMIT_OF: Final = {letter: on_limit for on_limit, letter in _MODE_OF.items()}
_DISABLED: Final = "x"


@dataclass(frozen=True, slots=True)
class FeatureUsage:
    """One counter of the current period. Units; `billed` is overage already sealed for billing.

    `closed` is the units of all closed periods, so `closed + used` never goes back.
    """

    rule: Rule
    used: int = 0
    overage: int = 0
    billed: int = 0
    closed: int = 0
    last_updated_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """What people set for an organisation, and its own data key."""

    reset: Reset
    timezone: str
    anchor_ms: int
    data_key: bytes = field(repr=False)
    created_ms: int
    updated_ms: int
    overrides: Mapping[str, Override] = field(default_factory=dict)
    stripe_customer_id: str | None = None
    payment_overdue: bool = False


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation: its plan, the period that runs, and every counter in it."""

    org_id: str
    plan: str
    period: Period
    claim: Claim
    features: Mapping[str, FeatureUsage]
    profile: Profile

    @property
    def overage_flagged(self) -> bool:
        """Whether any feature has overage in this period."""
        return any(usage.overage for usage in self.features.values())

    @property
    def updated_ms(self) -> int:
        """The last change of settings or counters."""
        return max(self.profile.updated_ms, *(u.last_updated_ms or 0 for u in self.features.values()), 0)


def settings_of(org: Org) -> dict[str, object]:
    """What people set for an organisation, ready for JSON: all that a change can alter, nothing that usage does."""
    profile = org.profile
    return {
        "org_id": org.org_id,
        "plan": org.plan,
        "overrides": {name: override_entry(override) for name, override in profile.overrides.items()},
        "reset": profile.reset.value,
        "timezone": profile.timezone,
        "stripe_customer_id": profile.stripe_customer_id,
    }


def rule_fields(rules: Mapping[str, Rule]) -> dict[str, str]:
    """Limits and modes as the record and the scripts hold them: `-1` is unlimited, a mode after `x` is disabled."""
    fields = {}
    for feature, rule in rules.items():
        fields[f"l:{feature}"] = "-1" if rule.limit is None else str(rule.limit)
        mode = _MODE_OF[rule.on_limit]
        fields[f"m:{feature}"] = mode if rule.enabled else _DISABLED + mode
    return fields


def _rule(limit: str, mode: str) -> Rule:
    """The rule of a pair of stored fields."""
    number = None if limit == "-1" else int(limit)
    return Rule(number, _ON_LIMIT_OF[mode[-1]], enabled=not mode.startswith(_DISABLED))


def parse(org_id: str, record: Mapping[str, str], stored: Mapping[str, str], codec: FieldCodec) -> Org:
    """Read an organisation. Raises ValueError or KeyError when the stored shape is not one this version wrote."""
    return Org(
        org_id=org_id,
        plan=record["plan"],
        period=Period(int(record["ps"]), int(record["pe"])),
        claim=Claim.parse(record["k"]),
        features={name[2:]: _usage(record, name[2:]) for name in record if name.startswith("l:")},
        profile=_profile(org_id, stored, codec),
    )


def _usage(record: Mapping[str, str], feature: str) -> FeatureUsage:
    def units(kind: str) -> int:
        return int(record.get(f"{kind}:{feature}", 0))

    return FeatureUsage(
        rule=_rule(record[f"l:{feature}"], record[f"m:{feature}"]),
        used=units("u"),
        overage=units("x"),
        billed=units("s"),
        closed=units("b"),
        last_updated_ms=units("t") or None,
    )


def profile_fields(org_id: str, profile: Profile, codec: FieldCodec) -> dict[str, str]:
    """A profile as stored, without `updated`, which the scripts write themselves when they change it."""
    fields = {
        "reset": profile.reset.value,
        "timezone": profile.timezone,
        "anchor": str(profile.anchor_ms),
        "key": codec.encode(org_id, "key", profile.data_key.hex()),
        "created": str(profile.created_ms),
        "overrides": _overrides_text(profile.overrides),
        "overdue": "1" if profile.payment_overdue else "0",
    }
    if profile.stripe_customer_id is not None:
        fields["stripe_customer"] = codec.encode(org_id, "stripe_customer", profile.stripe_customer_id)
    return fields


def _profile(org_id: str, stored: Mapping[str, str], codec: FieldCodec) -> Profile:
    customer = stored.get("stripe_customer")
    return Profile(
        reset=Reset(stored["reset"]),
        timezone=stored["timezone"],
        anchor_ms=int(stored["anchor"]),
        data_key=bytes.fromhex(codec.decode(org_id, "key", stored["key"])),
        created_ms=int(stored["created"]),
        updated_ms=int(stored["updated"]),
        overrides=_overrides(stored["overrides"]),
        stripe_customer_id=None if customer is None else codec.decode(org_id, "stripe_customer", customer),
        payment_overdue=stored["overdue"] == "1",
    )


def _overrides_text(overrides: Mapping[str, Override]) -> str:
    """Overrides as JSON, only what is set: `{"scans": {"limit": 50}}`; a null limit is unlimited."""
    return json.dumps({name: override_entry(override) for name, override in sorted(overrides.items())})


def override_entry(override: Override) -> dict[str, object]:
    """One override as JSON-ready fields, only what it sets."""
    entry: dict[str, object] = {}
    if override.limit is not KEEP:
        entry["limit"] = override.limit
    if override.on_limit is not None:
        entry["on_limit"] = override.on_limit.value
    if override.enabled is not None:
        entry["enabled"] = override.enabled
    return entry


def _overrides(text: str) -> dict[str, Override]:
    entries: dict[str, dict[str, Any]] = json.loads(text)
    return {name: _override(entry) for name, entry in entries.items()}


def _override(entry: Mapping[str, Any]) -> Override:
    on_limit = entry.get("on_limit")
    return Override(
        limit=entry.get("limit", KEEP),
        on_limit=None if on_limit is None else OnLimit(on_limit),
        enabled=entry.get("enabled"),
    )
