"""The conservation law: every unit counted has one place, and every key is one we know.

For each organisation, feature and period: used = sum of history = included + credit + overage (net of what was given
back), with no part negative. Sums that are shown as counters never go back: units that a correction takes out stay in
them under their plan, and the units taken out ever are a sum of their own. Whole data sets are walked key by key, so
that a key nobody declared is found too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from metering.store.api_key import key_laws
from metering.store.connect import texts
from metering.store.credit_laws import credit_laws, next_expiry
from metering.store.erasure_laws import erasure_laws
from metering.store.frames import DAY_MS, HOUR_MS, day_text
from metering.store.keys import SHAPES, Expiry, Keys, Kind, Shape, key_partition
from metering.store.sums import ever_by_plan, figures, sums_of, taken_out
from metering.store.violations import Report
from metering.store.window import Window
from metering.store.window_laws import counter_laws, list_laws, readable, unsealed_laws
from plans.periods import Period

Hash = dict[str, str]

Client = Any
"""A redis.asyncio.Redis that answers in bytes; its own types say bytes or text everywhere."""


@dataclass(slots=True)
class _Org:
    """What a walk gathers of one organisation."""

    record: Hash = field(default_factory=dict)
    archives: dict[int, Hash] = field(default_factory=dict)
    history: dict[tuple[str, str], Hash] = field(default_factory=dict)  # (feature, day) -> fields
    minutes: dict[tuple[str, str], Hash] = field(default_factory=dict)  # (feature, hour) -> fields
    open: dict[str, tuple[str, ...]] = field(default_factory=dict)  # hold -> feature, units, kind, end
    holds: dict[str, Hash] = field(default_factory=dict)
    grace_ends: int | None = None
    credits: dict[str, Hash] = field(default_factory=dict)  # pool, grants, burned
    others: list[str] = field(default_factory=list)  # every key of it but the record

    def held(self) -> dict[str, int]:
        """Units of open holds by feature."""
        units: Counter[str] = Counter()
        for feature, quantity, *_ in self.open.values():
            units[feature] += int(quantity)
        return units


async def walk(client: Client, keys: Keys, *, history_from_ms: int = 0) -> Report:
    """Walk every key of a data set that nobody writes to meanwhile, and check every law.

    Periods that began before `history_from_ms` may have lost history to retention and are not compared with it.
    """
    report = Report()
    orgs: dict[str, _Org] = defaultdict(_Org)
    shared: dict[str, dict[str, Any]] = defaultdict(dict)
    async for raw in client.scan_iter(count=1000):
        await _gather(client, raw.decode(), keys, orgs, shared, report)
    marks = {name: orgs.pop(name).others for name in list(orgs) if "erased" in orgs[name].record}
    for name, org in orgs.items():
        with _readable(keys.record(name), report):
            members = shared[f"p{keys.partition(name):02x}"]
            _check_org(name, org, keys, report, history_from_ms)
            _check_overage(name, org, members, keys, report)
            _check_credits(name, org, members, keys, report)
    for tag, members in shared.items():
        inside = {n: o for n, o in orgs.items() if f"p{keys.partition(n):02x}" == tag}
        with _readable(f"{{{tag}}}", report):
            _check_partition(tag, members, inside, report)
        gone = {name: left for name, left in marks.items() if f"p{keys.partition(name):02x}" == tag}
        for law, found in erasure_laws(gone, members):
            report.claim(False, f"{{{tag}}}:erased", law, found)
    report.orgs = len(orgs)
    return report


@contextmanager
def _readable(key: str, report: Report) -> Iterator[None]:
    """A figure that is missing or no number is a violation too, and ends the checks of its owner alone."""
    try:
        yield
    except (KeyError, ValueError) as error:
        report.claim(False, key, "every figure can be read", repr(error))


async def check_org(
    client: Client, keys: Keys, org_id: str, features: tuple[str, ...], *, history_days: int = 3660
) -> Report:
    """Check one organisation's running period, of one instant, while others write.

    A period longer than `history_days` may have lost history to retention and is not compared with it.
    """
    report = Report(orgs=1)
    for _ in range(3):  # the period may roll between the two reads
        start, end = await client.hmget(keys.record(org_id), "ps", "pe")
        if start is None:
            return report
        days = [
            (feature, day_text(day))
            for feature in features
            for day in range(int(start) // DAY_MS, (int(end) - 1) // DAY_MS + 1)
        ]
        pipe = client.pipeline(transaction=True)
        pipe.hgetall(keys.record(org_id))
        for feature, day in days:
            pipe.hgetall(keys.history(org_id, feature, day))
        record, *history = [texts(found) for found in await pipe.execute()]
        if record.get("ps") == start.decode():
            org = _Org(record=record, history=dict(zip(days, history, strict=True)))
            compared = int(end) - int(start) <= history_days * DAY_MS
            with _readable(keys.record(org_id), report):
                _check_period(keys.record(org_id), record, org.history, report, compared=compared)
            break
    return report


# ── gathering ────────────────────────────────────────────────────────────────────────────────────────────


async def _gather(
    client: Client, key: str, keys: Keys, orgs: dict[str, _Org], shared: dict[str, dict[str, Any]], report: Report
) -> None:
    """Put one key where it belongs; a key of no known shape, type or expiry is a violation."""
    report.keys += 1
    found = _shape_of(key)
    if found is None:
        report.claim(False, key, "every key has a declared shape", "none matches")
        return
    shape, parts = found
    kind, ttl_ms = (await client.type(key)).decode(), await client.pttl(key)
    if kind == "none":
        return  # gone between the scan and now: its time was over, or its last member was taken out
    report.claim(kind == shape.kind, key, f"is a {shape.kind}", kind)
    report.claim((ttl_ms >= 0) == (shape.expiry is Expiry.TTL), key, f"expires by {shape.expiry}", f"{ttl_ms} ms left")
    home = _home(parts, keys) in (None, int(parts.get("p", "0"), 16))
    report.claim(home, key, "lies in the partition of its organisation", parts)
    if kind != shape.kind or not home:
        return
    _note(key, shape, parts, orgs)
    if shape.name in _OF_AN_ORG:
        _keep(shape.name, parts, texts(await client.hgetall(key)), orgs[parts["org"]])
    elif shape.name == "holds":
        _gather_holds(key, await client.zrange(key, 0, -1, withscores=True), orgs[parts["org"]], report)
    elif shape.name == "profile":
        ends = await client.hget(key, "grace")
        orgs[parts["org"]].grace_ends = None if ends is None else int(ends)
    elif shape.name in ("totals", "plans"):
        shared[f"p{parts['p']}"][shape.name] = texts(await client.hgetall(key))
    elif shape.name in _BY_ID:
        named = shared[f"p{parts['p']}"].setdefault(shape.name, {})
        named[parts[_BY_ID[shape.name]]] = texts(await client.hgetall(key))
    elif shape.kind is Kind.ZSET and shape.expiry is Expiry.NEVER and shape.name not in _SCORED:
        pairs = await client.zrange(key, 0, -1, withscores=True)
        shared[f"p{parts['p']}"][shape.name] = {member.decode(): int(score) for member, score in pairs}


def _note(key: str, shape: Shape, parts: Mapping[str, str], orgs: dict[str, _Org]) -> None:
    """Note that an organisation has a key besides its record."""
    if "org" in parts and shape.name != "record":
        orgs[parts["org"]].others.append(key)


_OF_AN_ORG = frozenset({"record", "archive", "history", "hold", "minutes", "pool", "grants", "burned"})
"""Hashes that are gathered by organisation."""

_BY_ID = {"window": "window", "api_key": "key_id"}
"""Hashes that are gathered by partition, and which part of their key names them."""

_SCORED = frozenset({"top", "spent", "denied"})
"""Sorted sets that no law speaks of; their scores may be no whole numbers."""


def _home(parts: Mapping[str, str], keys: Keys) -> int | None:
    """The partition a key belongs to, by its organisation or by the id of an API key; None: to any."""
    if "key_id" in parts:
        return key_partition(parts["key_id"])
    return keys.partition(parts["org"]) if "org" in parts else None


def _gather_holds(key: str, members: list[tuple[bytes, float]], org: _Org, report: Report) -> None:
    for member, ends_ms in members:
        name, *figures = member.decode().split("|")
        report.claim(name not in org.open, key, "an open hold stands there once", name)
        org.open[name] = (*figures, str(int(ends_ms)))


def _keep(kind: str, parts: Mapping[str, str], values: Hash, org: _Org) -> None:
    """Put a hash of one organisation where it belongs."""
    if kind == "record":
        org.record = values
    elif kind == "archive":
        org.archives[int(parts["start_ms"])] = values
    elif kind == "hold":
        org.holds[parts["hold"]] = values
    elif kind == "minutes":
        org.minutes[parts["feature"], parts["hour"]] = values
    elif kind == "history":
        org.history[parts["feature"], parts["day"]] = values
    else:
        org.credits[kind] = values


_REGEXES = tuple((shape, shape.regex()) for shape in SHAPES)


def _shape_of(key: str) -> tuple[Shape, Mapping[str, str]] | None:
    for shape, regex in _REGEXES:
        match = regex.fullmatch(key)
        if match:
            return shape, match.groupdict()
    return None


# ── checking ─────────────────────────────────────────────────────────────────────────────────────────────


def _check_org(name: str, org: _Org, keys: Keys, report: Report, history_from_ms: int) -> None:
    record_key = keys.record(name)
    report.claim(bool(org.record), record_key, "an organisation has a record", "none")
    if not org.record:
        return
    _check_period(record_key, org.record, org.history, report, compared=int(org.record["ps"]) >= history_from_ms)
    for start_ms, archive in sorted(org.archives.items()):
        key = keys.archive(name, start_ms)
        _check_period(key, archive, org.history, report, compared=start_ms >= history_from_ms)
        report.claim(int(archive["ps"]) == start_ms, key, "an archive is named by its start", archive["ps"])
    _check_holds(name, org, keys, report)
    spans = sorted((Period(int(h["ps"]), int(h["pe"])) for h in (org.record, *org.archives.values())), key=_start)
    for before, after in pairwise(spans):
        report.claim(before.end_ms <= after.start_ms, record_key, "periods do not overlap", (before, after))
    closed = sums_of(org.archives.values(), "u")
    carried = {feature: units for feature, units in figures(org.record, "b").items() if units}
    report.claim(carried == closed, record_key, "closed units = sum of archives", (carried, closed))
    _check_history_placed(name, org, spans, keys, report)
    _check_minutes(name, org, keys, report)


def _check_holds(name: str, org: _Org, keys: Keys, report: Report) -> None:
    """Units held are those of the open holds; what is told of an open hold says the same of it, while it is told of."""
    held = {feature: units for feature, units in figures(org.record, "h").items() if units}
    report.claim(held == org.held(), keys.record(name), "units held = open holds", (held, org.held()))
    for hold in org.open.keys() & org.holds.keys():
        kept = org.holds[hold]
        told = tuple(kept.get(field, "") for field in ("feature", "quantity", "kind", "expires"))
        same = told == org.open[hold] and kept.get("status") == "held"
        report.claim(same, keys.hold(name, hold), "an open hold is held", (kept, org.open[hold]))


def _check_period(
    key: str, record: Hash, history: Mapping[tuple[str, str], Hash], report: Report, *, compared: bool
) -> None:
    """The law of one period: used = history, overage = its history, and every part in its bounds."""
    period = Period(int(record["ps"]), int(record["pe"]))
    kinds = [figures(record, kind) for kind in ("u", "x", "s", "y", "a")]
    report.units += sum(kinds[0].values())
    for feature in {name for fields in kinds for name in fields} | {feature for feature, _ in history}:
        u, x, s, y, a = (fields.get(feature, 0) for fields in kinds)
        place = f"{key}#{feature}"
        report.claim(0 <= s <= x, place, "0 <= sealed <= overage accrued", (s, x))
        report.claim(0 <= y <= x, place, "0 <= given back <= overage accrued", (y, x))
        report.claim(a >= 0 and x - y + a <= u, place, "credit + overage <= used", (a, x - y, u))
        if compared:
            units, extra = _history(feature, history, period)
            report.claim(u == units, place, "used = sum of history", (u, units))
            report.claim(x - y == extra, place, "overage = sum of its history", (x - y, extra))


def _history(feature: str, history: Mapping[tuple[str, str], Hash], period: Period) -> tuple[int, int]:
    """Units and overage that history holds for one period."""
    units = extra = 0
    for (name, day), fields in history.items():
        if name != feature:
            continue
        for at_ms, is_overage, value in _buckets(day, fields):
            if period.start_ms <= at_ms < period.end_ms:
                units, extra = (units, extra + value) if is_overage else (units + value, extra)
    return units, extra


def _buckets(day: str, fields: Hash) -> Iterator[tuple[int, bool, int]]:
    """Each bucket of a history day: the instant it begins, whether it is overage, its units."""
    midnight = int(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).timestamp() * 1000)
    for bucket, value in fields.items():
        hour, _, inside_ms = bucket.removeprefix("x").partition("+")
        yield midnight + int(hour) * HOUR_MS + int(inside_ms or 0), bucket.startswith("x"), int(value)


def _check_history_placed(name: str, org: _Org, spans: list[Period], keys: Keys, report: Report) -> None:
    """Every unit of history lies in a period that is known, and no hour has more overage than units."""
    for (feature, day), fields in org.history.items():
        for at_ms, _, _ in _buckets(day, fields):
            inside = any(span.start_ms <= at_ms < span.end_ms for span in spans)
            report.claim(inside, keys.history(name, feature, day), "history lies in a known period", at_ms)
        for bucket in fields:
            if bucket.startswith("x"):
                extra, units = int(fields[bucket]), int(fields.get(bucket[1:], 0))
                report.claim(extra <= units, keys.history(name, feature, day), "an hour's overage <= its units", bucket)


def _check_minutes(name: str, org: _Org, keys: Keys, report: Report) -> None:
    """Minutes hold no more than their hour; less where they were not kept from its beginning on."""
    for (feature, hour), fields in org.minutes.items():
        day = org.history.get((feature, hour[:8]), {})
        for extra in ("", "x"):
            whole = sum(int(units) for bucket, units in day.items() if bucket.partition("+")[0] == extra + hour[8:])
            parts = sum(int(units) for minute, units in fields.items() if minute.startswith("x") == bool(extra))
            place = keys.minutes(name, feature, hour)
            report.claim(parts <= whole, place, "minutes hold no more than their hour", (extra, parts, whole))


def _check_overage(name: str, org: _Org, members: Mapping[str, Any], keys: Keys, report: Report) -> None:
    """Overage is sealed or waits to be, and what is sealed is in windows."""
    windows: dict[tuple[str, int], list[Window]] = defaultdict(list)
    for window in readable(members.get("window", {}))[0]:
        if window.cut.org_id == name:
            windows[window.cut.feature, window.cut.period.start_ms].append(window)
    counters: dict[str, tuple[Hash, str]] = {}
    periods = {"": (keys.record(name), org.record)} | {
        f"|{start_ms}": (keys.archive(name, start_ms), archive) for start_ms, archive in org.archives.items()
    }
    for suffix, (key, record) in periods.items():
        features = {feature for kind in "xsyzdqg" for feature in figures(record, kind)}
        counters |= {f"{name}|{feature}{suffix}": (record, feature) for feature in features}
        for feature in features:
            own = windows.pop((feature, int(record["ps"])), [])
            for law, found in counter_laws(record, feature, own):
                report.claim(False, f"{key}#{feature}", law, found)
    report.claim(not windows, keys.record(name), "a window belongs to a counter", list(windows))
    for law, found in unsealed_laws(name, counters, members):
        report.claim(False, keys.record(name), law, found)


def _check_credits(name: str, org: _Org, members: Mapping[str, Any], keys: Keys, report: Report) -> None:
    """Every credit of every grant has one place, and whoever has credits is told so and lapses in time."""
    hashes = (org.credits.get(kind, {}) for kind in ("pool", "grants", "burned"))
    for law, found in credit_laws(name, *hashes):
        report.claim(False, keys.grants(name), law, found)
    has_any = "pool" in org.record
    report.claim(has_any or not org.credits, keys.record(name), "an organisation with credits says so", org.credits)
    expected = next_expiry(org.credits.get("pool", {}))
    lapses = members.get("lapsing", {}).get(name)
    report.claim(lapses == expected, keys.pool(name), "lapsing = the next expiry of credits", (lapses, expected))


def _check_partition(tag: str, members: Mapping[str, Any], orgs: Mapping[str, _Org], report: Report) -> None:
    """The partition's sums: units ever, organisations by plan, the index, and when claims run out."""
    key = f"{{{tag}}}"
    totals = {name: units for name, units in figures(members.get("totals", {}), "u").items() if units}
    ever = Counter(figures(members.get("totals", {}), "g"))  # of organisations that were erased
    for org in orgs.values():
        ever.update(ever_by_plan(org.record) if org.record else {})
    found = {name: units for name, units in ever.items() if units}
    report.claim(totals == found, f"{key}:totals", "totals = units of all organisations", (totals, found))
    taken = {name: units for name, units in figures(members.get("totals", {}), "c").items() if units}
    gone = Counter(figures(members.get("totals", {}), "o"))
    gone.update(taken_out(org.record for org in orgs.values()))
    missing = {feature: moved for feature, moved in gone.items() if moved}
    report.claim(taken == missing, f"{key}:totals", "units taken out = units that no plan has", (taken, missing))
    plans = {plan: int(count) for plan, count in members.get("plans", {}).items() if int(count)}
    by_plan = dict(Counter(org.record.get("plan", "") for org in orgs.values()))
    report.claim(plans == by_plan, f"{key}:plans", "plans = organisations by plan", (plans, by_plan))
    report.claim(set(members.get("orgs", {})) == set(orgs), f"{key}:orgs", "index = organisations", len(orgs))
    strangers = {name.split("|")[0] for kind in ("dirty", "unbilled") for name in members.get(kind, {})} - set(orgs)
    report.claim(not strangers, f"{key}:dirty", "dirty organisations exist", strangers)
    known = set(orgs) | set(members.get("erasing", {}))
    for law, breach in list_laws(members, known):
        report.claim(False, f"{key}:outbox", law, breach)
    waiting = {name for name, org in orgs.items() if org.open}
    report.claim(waiting <= set(members.get("expiring", {})), f"{key}:expiring", "open holds have their turn", waiting)
    listed, owners = key_laws(members.get("api_key", {}))
    report.claim(set(members.get("api_keys", {})) == listed, f"{key}:api_keys", "list = API keys", listed)
    report.claim(owners <= known, f"{key}:api_keys", "API keys belong to organisations", owners - known)
    grace = {name: org.grace_ends for name, org in orgs.items() if org.grace_ends is not None}
    report.claim(members.get("grace", {}) == grace, f"{key}:grace", "grace = end of each grace", len(grace))
    due = {name: int(org.record["k"].split(":")[0]) for name, org in orgs.items() if org.record}
    report.claim(members.get("due", {}) == due, f"{key}:due", "due = end of each claim", len(due))


def _start(period: Period) -> int:
    return period.start_ms
