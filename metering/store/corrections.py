"""Corrections: units put in or taken out after the fact, each once, with its trail, whatever is lost on the way.

The rare path: one look at the organisation, one script. The claim proves that what was looked at still holds; where
it does not, nothing was written and the next turn looks again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from metering.errors import (
    BelowZero,
    ClockUnsafe,
    EventConflict,
    EventNotFound,
    FeatureUnknown,
    Invalid,
    OrgCorrupt,
    OrgNotFound,
    PeriodFinal,
    PeriodNotFound,
    Problem,
    TimestampOutOfRange,
    TotalTooLarge,
    VersionConflict,
)
from metering.store.connect import answered
from metering.store.correction import Change, Corrected, Correction, Figures, Kind, Row, change_of
from metering.store.digests import Digests, Ids, digits, shard_of
from metering.store.fields import FieldCodec, sealed_name
from metering.store.frames import DAY_MS, HOUR_MS, day_text, hour_text, pool_names, shard_names
from metering.store.grants import DETAILS
from metering.store.keys import Keys
from metering.store.org import Org
from metering.store.orgs import Orgs
from metering.store.retention import Retention
from metering.store.scripts import script
from metering.store.timing import StoreTime
from metering.store.trail import Entry, Trail
from plans.credits import Kind as GrantKind
from plans.periods import AHEAD_MAX_MS, Period, month_utc

if TYPE_CHECKING:
    from redis.asyncio import Redis

_TURNS: Final = 8
"""As many as the organisations allow: each lost turn means that somebody else made progress."""

_DEFAULTS: Final = Retention()

_ROW: Final = 11
"""What the script answers of one feature: two counters of four figures, the limit, units held, the trail entry."""

DONE, DUPLICATE, OTHER_CONTENT, NO_EVENT, OTHER_EVENT, BELOW_ZERO, STALE, NO_FEATURE = range(1, 9)
TOO_LARGE, CORRUPT, FINAL, NO_PERIOD, OTHER_PERIOD, CAPPED, OUTSIDE = range(9, 16)
APART: Final = -1
EARLY, FULL = 4, 5


@dataclass(frozen=True, slots=True)
class _Target:
    """What a turn corrects: the organisation as it was looked at, the period, and what to do to which features."""

    org: Org
    period: Period
    changes: tuple[Change, ...]

    @property
    def closed(self) -> bool:
        return self.period != self.org.period

    @property
    def of_this_month(self) -> bool:
        """Whether all that this period counted has ids of this month: it began in it."""
        return month_utc(self.period.start_ms) == self.org.claim.month


class Corrections:
    """Corrects the counters of one data set. Errors of the store come out as 503 problems."""

    def __init__(
        self,
        client: "Redis",
        keys: Keys,
        orgs: Orgs,
        time: StoreTime,
        codec: FieldCodec,
        *,
        secret: bytes,
        retention: Retention = _DEFAULTS,
        fake: bool = False,
    ) -> None:
        self._client: Any = client
        self._keys, self._orgs, self._time = keys, orgs, time
        self._trail = Trail(client, keys, time, codec)
        self._digests = Digests(secret)
        self._retention, self._codec = retention, codec
        self._adjust = client.register_script(script("adjust", fake=fake).text)

    async def make(self, correction: Correction) -> Corrected:
        """Make a correction, or say that it was made before. It is safe to repeat.

        Raises OrgNotFound, FeatureUnknown, PeriodNotFound, PeriodFinal, BelowZero, TotalTooLarge, EventConflict for a
        name used with other content, TimestampOutOfRange; of a void also EventNotFound, and Invalid where the request
        has to say more.
        """
        full = None
        for _ in range(_TURNS):
            org = await self._orgs.present(correction.org_id, full=full)
            if org is None:
                raise OrgNotFound
            target = await self._target(org, correction)
            code, *cells = await answered(self._adjust(*self._words(correction, target)))
            if code != STALE:
                return await self._settled(correction, target, code, cells)
            if cells[0] == EARLY:
                raise ClockUnsafe(headers={"Retry-After": "1"})
            full = org.claim.text() if cells[0] == FULL else None
        raise VersionConflict(f"organisation {correction.org_id} changed too often at the same time")

    async def _target(self, org: Org, correction: Correction) -> _Target:
        """The period that is meant, and the features. Raises PeriodNotFound."""
        period = org.period
        if correction.period_ms not in (None, period.start_ms):
            period = await self._closed(org.org_id, correction.period_ms or 0)
        changes = correction.changes
        if correction.kind is Kind.RESET and not changes:
            forgive = bool(correction.content[0][1])
            used = sorted(name for name, usage in org.features.items() if usage.used)
            changes = tuple(change_of(name, forgive=forgive) for name in used)
        return _Target(org, period, changes)

    async def _closed(self, org_id: str, start_ms: int) -> Period:
        """A closed period of the organisation, by its start. Its span never changes."""
        ends = await answered(self._client.hget(self._keys.archive(org_id, start_ms), "pe"))
        if ends is None:
            raise PeriodNotFound
        return Period(start_ms, int(ends))

    # ── the call ─────────────────────────────────────────────────────────────────────────────────────────

    def _words(self, correction: Correction, target: _Target) -> tuple[list[str], list[Any]]:
        """KEYS and ARGV, as `adjust.lua` lists them."""
        org, period, keys = target.org, target.period, self._keys
        partition, name = keys.partition(org.org_id), org.org_id
        own = self._ids(correction, correction.digested, correction.content)
        event = None if correction.event is None else self._ids(correction, b"", correction.event)
        first_day, last_day = period.start_ms // DAY_MS, (period.end_ms - 1) // DAY_MS
        hours = self._minute_hours(period)
        record = keys.record(name)
        names = [record, keys.archive(name, period.start_ms) if target.closed else record, keys.trail(name)]
        names += [keys.shared(kind, partition) for kind in ("dirty", "totals", "crossings")]
        names += [] if self._time.test_offset_ms is None else [keys.shared("clock", partition)]
        names += [*pool_names(keys, name), keys.holds(name)] if org.pool else []
        for ids in (own,) if event is None else (own, event):
            names += shard_names(keys, org, shard_of(ids[0]))
        for change in target.changes:
            names += [keys.history(name, change.feature, day_text(day)) for day in range(first_day, last_day + 1)]
            names += [keys.minutes(name, change.feature, hour_text(hour)) for hour in hours]
        args = [
            self._time.caller_ms(), self._time.offset_text(), org.claim.text(),
            sealed_name(name, org.profile.data_key),
            self._retention.history_s, self._retention.minutes_s,
            "" if correction.at_ms is None else correction.at_ms,
            digits(own[0]), digits(own[1]), *(("", "") if event is None else map(digits, event)),
            "1" if target.of_this_month else "", first_day, last_day - first_day + 1,
            hours.start, len(hours), len(target.changes),
        ]  # fmt: skip
        entry = _entry_fields(correction)
        rows = [word for c in target.changes for word in (c.feature, c.change, "1" if c.recorded else "")]
        return names, [*args, len(entry), *self._credit_words(org, own), *rows, *entry]

    def _credit_words(self, org: Org, own: Ids) -> list[str]:
        """The day where the organisation has credits, and the grant that credits given back make."""
        if not org.pool:
            return ["", "", ""]
        today = day_text(self._time.now_ms() // DAY_MS)
        details = json.dumps({"kind": GrantKind.PROMOTIONAL, "reason": "usage was taken back"})
        return [today, f"cg_back_{own[0].hex()}", self._codec.encode(org.org_id, DETAILS, details)]

    def _ids(self, correction: Correction, kind: bytes, content: Sequence[tuple[bytes, int]]) -> Ids:
        return self._digests.ids(correction.org_id, correction.source, correction.name, content, kind)

    def _minute_hours(self, period: Period) -> range:
        """The hours of a period that may have minutes: these are kept from the first event on, which may be late."""
        keep_ms, now_ms = self._retention.minutes_s * 1000, self._time.now_ms()
        if not keep_ms:
            return range(0)
        first_ms = max(period.start_ms, now_ms - 2 * keep_ms - HOUR_MS)
        last_ms = min(period.end_ms - 1, now_ms + AHEAD_MAX_MS)
        return range(first_ms // HOUR_MS, last_ms // HOUR_MS + 1)

    # ── its answer ───────────────────────────────────────────────────────────────────────────────────────

    async def _settled(self, correction: Correction, target: _Target, code: int, cells: list[Any]) -> Corrected:
        """The answer as the caller sees it, or the problem that it is."""
        rows = _rows(target.changes, cells) if code in (DONE, DUPLICATE) else ()
        if code == DONE:
            return Corrected(correction, target.period, rows)
        if code != DUPLICATE:
            raise _problem(code, correction, target, cells)
        entries = await self._trail.latest(correction.org_id, correction.kind, correction.name, correction.source)
        if correction.minted:  # only this request knows the name: its first answer was lost on the way
            return Corrected(correction, target.period, tuple(map(_row_of, entries)) or rows)
        ids = {entry.fields.get("feature"): entry.entry_id for entry in entries}
        rows = tuple(replace(row, audit_id=ids.get(row.feature)) for row in rows)
        return Corrected(correction, target.period, rows, duplicate=True)


def _entry_fields(correction: Correction) -> list[str]:
    """What the trail says besides the figures: the type first."""
    by = correction.by
    fields = {"type": correction.kind.value, "actor": by.actor, "reason": by.reason, "id": correction.name}
    fields |= {"source": correction.source} if correction.source else {}
    fields |= {"request_id": by.request_id} if by.request_id else {}
    return [part for pair in fields.items() for part in pair]


def _rows(changes: tuple[Change, ...], cells: list[Any]) -> tuple[Row, ...]:
    return tuple(
        _row(change.feature, cells[at : at + _ROW])
        for at, change in zip(range(0, len(cells), _ROW), changes, strict=True)
    )


def _row(feature: str, cells: list[Any]) -> Row:
    used, accrued, back, credit, used_after, accrued_after, back_after, credit_after, limit, held, entry = cells
    bound = None if limit < 0 else limit
    before = Figures(used, accrued - back, bound, held, credit)
    after = Figures(used_after, accrued_after - back_after, bound, held, credit_after)
    return Row(feature, before, after, entry.decode() or None)


def _row_of(entry: Entry) -> Row:
    """The row that a correction's own trail entry holds."""
    limit = int(entry.fields["limit"])
    bound = None if limit < 0 else limit
    before, after = (
        Figures(
            int(entry.fields[f"used_{when}"]),
            int(entry.fields[f"overage_{when}"]),
            bound,
            credit=int(entry.fields.get(f"credit_{when}", 0)),
        )
        for when in ("before", "after")
    )
    return Row(entry.fields["feature"], before, after, entry.entry_id)


def _problem(code: int, correction: Correction, target: _Target, cells: list[Any]) -> Problem:
    """The problem that a refusal is. Nothing was written."""
    if code in (OTHER_CONTENT, OTHER_EVENT):
        return EventConflict(_CONFLICTS[code], org_id=correction.org_id, event_id=correction.name)
    if code in (BELOW_ZERO, TOO_LARGE, NO_FEATURE, CAPPED):
        changed = zip(target.changes, _rows(target.changes, cells), strict=True)
        return _problem_of_rows(code, correction, [(c, row) for c, row in changed if row.audit_id == f"!{code}"])
    if code == OTHER_PERIOD:
        return _invalid(
            "/period", "missing", "the event was counted before this period: name the one it was counted in"
        )
    if code == OUTSIDE:
        span = target.period
        return TimestampOutOfRange("not in the period", oldest_ms=span.start_ms, newest_ms=span.end_ms - 1)
    plain: dict[int, Problem] = {
        NO_EVENT: EventNotFound(event_id=correction.name),
        CORRUPT: OrgCorrupt(),
        FINAL: PeriodFinal(),
        NO_PERIOD: PeriodNotFound(),
        APART: ClockUnsafe(headers={"Retry-After": "5"}),
    }
    return plain[code]


_CONFLICTS: Final = {
    OTHER_CONTENT: "this id was used for another correction",
    OTHER_EVENT: "the event has another feature or quantity",
}


def _problem_of_rows(code: int, correction: Correction, faults: list[tuple[Change, Row]]) -> Problem:
    """The problem of features that stand in the way, the first of them in its words."""
    change, row = faults[0]
    feature, used = row.feature, row.before.used
    if code == NO_FEATURE:
        return FeatureUnknown(f"the period has no feature '{feature}'", feature=feature)
    if code == CAPPED:
        detail = "some events were recorded in part: say how many units the event's answer said were recorded"
        return _invalid(f"{change.place.rpartition('/')[0]}/recorded", "missing", detail)
    kind, word = (BelowZero, "below-zero") if code == BELOW_ZERO else (TotalTooLarge, "total-too-large")
    detail = f"{feature} stands at {used}, {row.delta:+} asked for"
    errors = [{"pointer": c.place, "code": word, "detail": f"{r.feature} stands at {r.before.used}"} for c, r in faults]
    return kind(
        detail, org_id=correction.org_id, feature=feature, current_usage=used, requested=row.delta, errors=errors
    )


def _invalid(pointer: str, code: str, detail: str) -> Invalid:
    return Invalid(f"{pointer}: {detail}", errors=[{"pointer": pointer, "code": code, "detail": detail}])
