"""The scripts that change one organisation, called: roll, change_plan and apply_event.

Each is a compare-and-set on the stored claim, so a lost reply or a race costs the caller one more turn.
"""

import json
from collections.abc import Awaitable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from metering.errors import ClockUnsafe, OrgCorrupt
from metering.log import request_id
from metering.store.changes import trail_entry
from metering.store.connect import StoreError, problem_of
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.org import Org, profile_fields, rate_fields, rule_fields
from metering.store.rolling import Roll, dropped_fields
from metering.store.scripts import script
from metering.store.timing import SKEW_MAX_MS, StoreTime

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PIPELINE_PREFACE: Final = "of pipeline caused error: ('"

_CORRUPT: Final = -2
"""What a script answers when a figure is no number."""

APPLIED_KEEP_S: Final = 35 * 86_400
"""Stripe sends an event again for days and lists it for 30; a repeat after that is none of Stripe's."""


class Applied(IntEnum):
    """What apply_event answers."""

    LOST = 0  # somebody else changed the organisation in between
    DONE = 1
    REPEATED = 2  # the event took effect before


async def asked(call: Awaitable[Any]) -> Any:
    """The store's answer to a call or pipeline of the driver, its errors as ours."""
    try:
        return await call
    except StoreError as error:
        raise problem_of(_as_told(error)) from error


class OrgScripts:
    """Calls the scripts for the organisations of one data set. Errors of the store come out as 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, time: StoreTime, codec: FieldCodec, *, fake: bool) -> None:
        self._keys = keys
        self._time = time
        self._codec = codec
        self._roll = client.register_script(script("roll", fake=fake).text)
        self._change = client.register_script(script("change_plan", fake=fake).text)
        self._apply = client.register_script(script("apply_event", fake=fake).text)
        self._link = client.register_script(script("link", fake=fake).text)

    async def roll(self, org: Org, roll: Roll) -> None:
        """Run roll.lua. Another caller's roll in between is fine: the next turn sees it."""
        name = org.org_id
        partition = self._keys.partition(name)
        keys = [
            self._keys.record(name),
            self._keys.archive(name, org.period.start_ms),
            self._keys.trail(name),
            *self._shared(partition, "due", "dirty", "totals", "spent"),
            self._keys.holds(name),
            *self._shared(partition, "queue", "unbilled"),
            *self._clock_key(partition),
        ]
        values = _flat(rule_fields(roll.rules) | rate_fields(roll.rate))
        period = roll.period
        args = [
            *self._clock_args(),
            org.claim.text(),
            roll.claim.text(),
            period.start_ms,
            period.end_ms,
            len(values),
            len(roll.spent),
            "1" if roll.early else "",
            json.dumps(roll.ended) if roll.ended else "",
            *values,
            *roll.spent,
            *roll.dropped,
        ]
        self._settled(await asked(self._roll(keys=keys, args=args)))

    async def link(self, org_id: str) -> int:
        """Run link.lua; how many counters with overage were taken up."""
        partition = self._keys.partition(org_id)
        keys = [self._keys.profile(org_id), *self._shared(partition, "dirty", "unbilled"), *self._clock_key(partition)]
        return max(0, self._settled(await asked(self._link(keys=keys, args=[*self._clock_args(), org_id]))))

    async def change(self, before: Org | None, after: Org, actor: str) -> bool:
        """Run change_plan.lua; False when the stored claim was another one."""
        name = after.org_id
        partition = self._keys.partition(name)
        keys = [
            self._keys.record(name),
            self._keys.profile(name),
            self._keys.trail(name),
            *self._shared(partition, "orgs", "plans", "due", "totals"),
            *self._clock_key(partition),
        ]
        rules = {feature: usage.rule for feature, usage in after.features.items()}
        values = _flat(rule_fields(rules) | rate_fields(after.rate))
        if before is None:
            values += ["ps", after.period.start_ms, "pe", after.period.end_ms]
        drops = () if before is None else dropped_fields(before, rules, after.rate)
        profile = _flat(profile_fields(name, after.profile, self._codec))
        counts = [len(values), len(drops), len(profile)]
        args = [
            *self._clock_args(),
            "" if before is None else before.claim.text(),
            after.claim.text(),
            after.plan,
            *counts,
            *values,
            *drops,
            *profile,
            *trail_entry(before, after, actor),
            *_asked_in(request_id.get()),
        ]
        return self._settled(await asked(self._change(keys=keys, args=args))) == 1

    async def apply(
        self, before: Org, after: Org, event: str | None, entries: Sequence[Sequence[str]], counted: Sequence[str] = ()
    ) -> Applied:
        """Run apply_event.lua: `after` takes the place of `before`, with the entries of the trail, each its type first.

        `event` is what the done mark is for; None: no event, no mark. Each of the totals `counted` grows by one.
        """
        name = after.org_id
        partition = self._keys.partition(name)
        keys = [
            self._keys.record(name),
            self._keys.profile(name),
            self._keys.trail(name),
            *self._shared(partition, "plans", "due", "totals", "grace"),
            self._keys.applied(name, event or ""),
            *self._clock_key(partition),
        ]
        values, drops, profile, gone = self._differences(before, after)
        args = [
            *self._clock_args(),
            before.claim.text(),
            after.claim.text(),
            after.plan,
            "" if event is None else APPLIED_KEEP_S,
            "" if after.profile.grace_end_ms is None else after.profile.grace_end_ms,
            *(len(part) for part in (values, drops, profile, gone, counted, entries)),
            *values,
            *drops,
            *profile,
            *gone,
            *counted,
            *(word for entry in entries for word in (len(entry), *entry)),
        ]
        return Applied(max(0, self._settled(await asked(self._apply(keys=keys, args=args)))))

    def _differences(self, before: Org, after: Org) -> tuple[list[Any], list[str], list[Any], list[str]]:
        """Values and drops of the record, then of the profile; none where the claim stays."""
        if before.claim == after.claim:
            return [], [], [], []
        name, rules = after.org_id, {feature: usage.rule for feature, usage in after.features.items()}
        values = [*_flat(rule_fields(rules) | rate_fields(after.rate)), "pe", after.period.end_ms]
        profile = profile_fields(name, after.profile, self._codec)
        gone = [field for field in profile_fields(name, before.profile, self._codec) if field not in profile]
        return values, list(dropped_fields(before, rules, after.rate)), _flat(profile), gone

    def _settled(self, reply: list[Any]) -> int:
        """The script's verdict. Raises ClockUnsafe when it found a clock or period that does not fit."""
        if reply[0] == _CORRUPT:
            raise OrgCorrupt
        if reply[0] == -1 and self._time.test_offset_ms is None:
            apart_ms = abs(int(reply[1]) - self._time.caller_ms())
            if apart_ms > SKEW_MAX_MS:
                raise ClockUnsafe(headers={"Retry-After": "5"})
        return int(reply[0])

    def _shared(self, partition: int, *kinds: str) -> list[str]:
        return [self._keys.shared(kind, partition) for kind in kinds]

    def _clock_args(self) -> list[Any]:
        return [self._time.caller_ms(), self._time.offset_text()]

    def _clock_key(self, partition: int) -> list[str]:
        return [] if self._time.test_offset_ms is None else [self._keys.shared("clock", partition)]


def _as_told(error: Exception) -> Exception:
    """A pipeline's error in the server's own words: the driver's preface hides the first, which says what it is."""
    _, _, words = str(error).partition(_PIPELINE_PREFACE)
    return ResponseError(words) if words and type(error) is ResponseError else error


def _asked_in(request: str) -> list[str]:
    """The trail's words for the request that a change came with."""
    return ["request_id", request] if request else []


def _flat(fields: Mapping[str, object]) -> list[Any]:
    return [part for pair in fields.items() for part in pair]
