"""An organisation as the store holds it: parsed whole, never half."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from metering.store.claim import Claim
from metering.store.fields import FieldCodec
from plans.catalogue import KEEP, Keep, Override
from plans.dunning import Debt, Word
from plans.limits import OnLimit, Rule
from plans.periods import Period, Reset
from plans.subwindows import Per, RateLimit, SubWindow
from plans.tiers import PriceModel, Pricing, Tier

_MODE_OF: Final = {OnLimit.OVERAGE: "o", OnLimit.BLOCK: "b", OnLimit.CAP: "c"}
_ON_LIMIT_OF: Final = {letter: on_limit for on_limit, letter in _MODE_OF.items()}
_DISABLED: Final = "x"
_PLANS: Final = "plan"  # a rate limit that is not the organisation's own
_AGREED: Final = ("price_minor", "rate_until_ms", "price_until_ms")

GRANTING: Final = frozenset({"active", "trialing", "past_due"})
"""Of https://docs.stripe.com/api/subscriptions/object#subscription_object-status; the others grant nothing."""

CUSTOMER: Final = "stripe_customer"
"""Field of a profile, and of the mark of an erased organisation."""

ERASED: Final = b"erased"
"""Field of a record that is the mark of an erased organisation."""

ENCODED: Final = ("key", CUSTOMER, "subscription", "debts")
"""Fields of a profile that pass the codec."""

_OVER: Final = "canceled"
"""The one status that a subscription which was in force ends with."""


_SELDOM: Final = ("stops_ms", "trial_end_ms")
"""What most subscriptions have not: kept by name, after the rest."""


@dataclass(frozen=True, slots=True)
class FeatureUsage:
    """One counter of the current period. Units; `billed` is overage that Stripe has, `overage` net of all that was
    given back, `credit` what credits paid for.

    `closed` is the units of all closed periods. `held` is what open reservations and leases keep, and those that ended
    without anybody having looked since.
    """

    rule: Rule
    used: int = 0
    overage: int = 0
    billed: int = 0
    closed: int = 0
    held: int = 0
    last_updated_ms: int | None = None
    credit: int = 0


@dataclass(frozen=True, slots=True)
class Subscription:
    """What Stripe said last of the organisation's current subscription: https://docs.stripe.com/api/subscriptions.

    `plan` is what its price buys, `since_ms` when it began, `anchor_ms` what its months are computed from, `period`
    that of its metered items, cut off where it ended, `metered` the features whose overage they bill. `stops_ms` is
    when it is to end by itself, `trial_end_ms` when what was to be tried out has to be paid; None: never, or nothing.
    """

    id: str
    status: str
    plan: str
    since_ms: int
    anchor_ms: int
    period: Period
    cancel_at_period_end: bool = False
    metered: frozenset[str] = frozenset()
    stops_ms: int | None = None
    trial_end_ms: int | None = None

    @property
    def grants(self) -> bool:
        """Whether its plan is in force: paid, tried out, or in the time that Stripe takes to collect."""
        return self.status in GRANTING

    @property
    def ended_ms(self) -> int | None:
        """When it ended: what was used from then on is on no invoice of it. None where it has not."""
        return self.period.end_ms if self.status == _OVER else None

    def ended_in(self, period: Period) -> int | None:
        """When it ended, where that was inside a period of ours or at its end: its last invoice bills that period."""
        ended_ms = self.ended_ms
        return ended_ms if ended_ms is not None and period.start_ms < ended_ms <= period.end_ms else None


@dataclass(frozen=True, slots=True)
class Profile:
    """What people and Stripe set for an organisation, and its own data key. `rate` KEEP: the plan's rate limit.

    `price_minor` is what its plan costs it a period, in minor units (None: what it costs everybody). `rate` and
    `price_minor` hold until `rate_until_ms` and `price_until_ms` (None: always), overrides until their own.

    `debts` are invoices whose payment failed, `grace_end_ms` when patience with them ends (None: there are none, or it
    has ended), `ticket` that of the newest reading of Stripe's that was taken over.
    """

    reset: Reset
    timezone: str
    anchor_ms: int
    data_key: bytes = field(repr=False)
    created_ms: int
    updated_ms: int
    overrides: Mapping[str, Override] = field(default_factory=dict)
    rate: RateLimit | Literal[Keep.KEEP] | None = KEEP
    stripe_customer_id: str | None = None
    payment_overdue: bool = False
    subscription: Subscription | None = None
    debts: Mapping[str, Debt] = field(default_factory=dict)
    grace_end_ms: int | None = None
    ticket: int = 0
    price_minor: int | None = None
    rate_until_ms: int | None = None
    price_until_ms: int | None = None

    @property
    def ends_ms(self) -> tuple[int, ...]:
        """The instants at which something that was agreed ends."""
        ends = [override.until_ms for override in self.overrides.values()]
        return tuple(end for end in (*ends, self.rate_until_ms, self.price_until_ms) if end is not None)

    def at(self, now_ms: int) -> "Profile":
        """What holds at an instant: as it is, without what has ended by then."""
        if all(now_ms < end for end in self.ends_ms):
            return self
        lasting = {name: one for name, one in self.overrides.items() if not over_by(one.until_ms, now_ms)}
        profile = replace(self, overrides=lasting)
        if over_by(self.rate_until_ms, now_ms):
            profile = replace(profile, rate=KEEP, rate_until_ms=None)
        if over_by(self.price_until_ms, now_ms):
            profile = replace(profile, price_minor=None, price_until_ms=None)
        return profile


def over_by(until_ms: int | None, now_ms: int) -> bool:
    """Whether something that holds until then (None: always) is over."""
    return until_ms is not None and until_ms <= now_ms


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation: its plan, the period that runs, and every counter in it.

    `rate` is the rate limit in force, `holds` whether it ever had reservations or leases since a claim without,
    `before` the period that closed last, where it had usage, and `pool` whether it ever had credits.
    """

    org_id: str
    plan: str
    period: Period
    claim: Claim
    features: Mapping[str, FeatureUsage]
    profile: Profile
    rate: RateLimit | None = None
    holds: bool = False
    before: Period | None = None
    pool: bool = False

    @property
    def rich(self) -> bool:
        """Whether more than plain counters decides: a rate limit, sub-windows, or holds at some time."""
        return self.holds or self.rate is not None or any(usage.rule.windows for usage in self.features.values())

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
        "rate": _PLANS if profile.rate is KEEP else rate_fields(profile.rate),
        "agreed": _agreed_text(profile),
    }


def rule_fields(rules: Mapping[str, Rule]) -> dict[str, str]:
    """Limits, modes and weights as the record and the scripts hold them: `-1` is unlimited, a mode after `x` is
    disabled.
    """
    fields = {}
    for feature, rule in rules.items():
        fields[f"l:{feature}"] = "-1" if rule.limit is None else str(rule.limit)
        mode = _MODE_OF[rule.on_limit]
        fields[f"m:{feature}"] = mode if rule.enabled else _DISABLED + mode
        if rule.windows:
            fields[f"w:{feature}"] = ",".join(f"{w.limit}/{w.per}{'~' * w.rolling}" for w in rule.windows)
        if rule.credits is not None:
            fields[f"v:{feature}"] = str(rule.credits)
    return fields


def rate_fields(rate: RateLimit | None) -> dict[str, str]:
    """A rate limit as the record and the scripts hold it: interval in microseconds, burst, then what it was made of."""
    return {} if rate is None else {"rate": f"{rate.interval_us}:{rate.burst}:{rate.events}:{rate.per}"}


def _rate(text: str | None) -> RateLimit | None:
    if text is None:
        return None
    _, burst, events, per = text.split(":")
    return RateLimit(int(events), Per(per), int(burst))


def _windows(text: str | None) -> tuple[SubWindow, ...]:
    """The sub-windows of a stored field: `100/hour,1000/day~`, `~` for rolling."""
    parts = [part.partition("/") for part in text.split(",")] if text else []
    return tuple(SubWindow(int(limit), Per(per.removesuffix("~")), per.endswith("~")) for limit, _, per in parts)


def _rule(record: Mapping[str, str], feature: str) -> Rule:
    """The rule of a feature, out of the fields of a record."""
    limit, mode, weight = record[f"l:{feature}"], record[f"m:{feature}"], record.get(f"v:{feature}")
    return Rule(
        None if limit == "-1" else int(limit),
        _ON_LIMIT_OF[mode[-1]],
        not mode.startswith(_DISABLED),
        _windows(record.get(f"w:{feature}")),
        None if weight is None else int(weight),
    )


def parse(org_id: str, record: Mapping[str, str], stored: Mapping[str, str], codec: FieldCodec) -> Org:
    """Read an organisation. Raises ValueError or KeyError when the stored shape is not one this version wrote."""
    return Org(
        org_id=org_id,
        plan=record["plan"],
        period=Period(int(record["ps"]), int(record["pe"])),
        claim=Claim.parse(record["k"]),
        features={name[2:]: _usage(record, name[2:]) for name in record if name.startswith("l:")},
        profile=_profile(org_id, stored, codec),
        rate=_rate(record.get("rate")),
        holds="holds" in record,
        before=Period(int(record["pb"]), int(record["pz"])) if "pb" in record else None,
        pool="pool" in record,
    )


def _usage(record: Mapping[str, str], feature: str) -> FeatureUsage:
    def units(kind: str) -> int:
        return int(record.get(f"{kind}:{feature}", 0))

    return FeatureUsage(
        rule=_rule(record, feature),
        used=units("u"),
        overage=units("x") - units("y"),
        billed=units("d"),
        closed=units("b"),
        held=units("h"),
        last_updated_ms=units("t") or None,
        credit=units("a"),
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
        "rate": _PLANS if profile.rate is KEEP else rate_fields(profile.rate).get("rate", ""),
        "agreed": _agreed_text(profile),
    }
    if profile.stripe_customer_id is not None:
        fields[CUSTOMER] = codec.encode(org_id, CUSTOMER, profile.stripe_customer_id)
    if profile.subscription is not None:
        fields["subscription"] = codec.encode(org_id, "subscription", _subscription_text(profile.subscription))
    if profile.debts:
        fields["debts"] = codec.encode(org_id, "debts", _debts_text(profile.debts))
    if profile.grace_end_ms is not None:
        fields["grace"] = str(profile.grace_end_ms)
    if profile.ticket:
        fields["ticket"] = str(profile.ticket)
    return fields


def _agreed_text(profile: Profile) -> str:
    """The price of its plan and the ends of what has one, only what is set."""
    return json.dumps({name: value for name in _AGREED if (value := getattr(profile, name)) is not None})


def _subscription_text(one: Subscription) -> str:
    seldom = {name: ms for name in _SELDOM if (ms := getattr(one, name)) is not None}
    known = [one.id, one.status, one.plan, one.since_ms, one.anchor_ms, one.period.start_ms, one.period.end_ms,
             one.cancel_at_period_end, *sorted(one.metered)]  # fmt: skip
    return json.dumps([*known, seldom] if seldom else known)


def _subscription(text: str) -> Subscription:
    name, status, plan, since_ms, anchor_ms, start_ms, end_ms, ends, *more = json.loads(text)
    seldom = more.pop() if more and isinstance(more[-1], dict) else {}
    period, metered = Period(start_ms, end_ms), frozenset(more)
    return Subscription(name, status, plan, since_ms, anchor_ms, period, ends, metered, **seldom)


def _debts_text(debts: Mapping[str, Debt]) -> str:
    return json.dumps([[name, debt.word, debt.since_ms] for name, debt in debts.items()])


def _debts(text: str) -> dict[str, Debt]:
    return {name: Debt(Word(word), since_ms) for name, word, since_ms in json.loads(text)}


def _profile(org_id: str, stored: Mapping[str, str], codec: FieldCodec) -> Profile:
    customer, subscription = stored.get(CUSTOMER), stored.get("subscription")
    told = None if subscription is None else codec.decode(org_id, "subscription", subscription)
    debts = stored.get("debts")
    return Profile(
        reset=Reset(stored["reset"]),
        timezone=stored["timezone"],
        anchor_ms=int(stored["anchor"]),
        data_key=bytes.fromhex(codec.decode(org_id, "key", stored["key"])),
        created_ms=int(stored["created"]),
        updated_ms=int(stored["updated"]),
        overrides=_overrides(stored["overrides"]),
        stripe_customer_id=None if customer is None else codec.decode(org_id, CUSTOMER, customer),
        payment_overdue=stored["overdue"] == "1",
        rate=KEEP if stored.get("rate", _PLANS) == _PLANS else _rate(stored["rate"] or None),
        subscription=None if told is None else _subscription(told),
        debts={} if debts is None else _debts(codec.decode(org_id, "debts", debts)),
        grace_end_ms=int(stored["grace"]) if "grace" in stored else None,
        ticket=int(stored.get("ticket", 0)),
        **json.loads(stored.get("agreed", "{}")),
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
    if override.windows is not None:
        entry["windows"] = [{"limit": w.limit, "per": w.per.value, "rolling": w.rolling} for w in override.windows]
    if override.pricing is not None:
        entry["overage_model"] = override.pricing.model.value
        entry["overage_tiers"] = [asdict(tier) for tier in override.pricing.tiers]
    if override.until_ms is not None:
        entry["until_ms"] = override.until_ms
    return entry


def _overrides(text: str) -> dict[str, Override]:
    entries: dict[str, dict[str, Any]] = json.loads(text)
    return {name: _override(entry) for name, entry in entries.items()}


def _override(entry: Mapping[str, Any]) -> Override:
    on_limit, windows = entry.get("on_limit"), entry.get("windows")
    return Override(
        limit=entry.get("limit", KEEP),
        on_limit=None if on_limit is None else OnLimit(on_limit),
        enabled=entry.get("enabled"),
        windows=None if windows is None else tuple(SubWindow(w["limit"], Per(w["per"]), w["rolling"]) for w in windows),
        pricing=_pricing(entry),
        until_ms=entry.get("until_ms"),
    )


def _pricing(entry: Mapping[str, Any]) -> Pricing | None:
    if "overage_model" not in entry:
        return None
    return Pricing(PriceModel(entry["overage_model"]), tuple(Tier(**tier) for tier in entry["overage_tiers"]))
