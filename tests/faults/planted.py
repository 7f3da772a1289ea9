"""Bugs on purpose: each is a patch to shipped files that the model test must catch."""

from dataclasses import dataclass
from typing import Final

TRACK: Final = "metering/store/lua/track.lua"
SHARED: Final = "metering/store/lua/shared/counting.lua"
COUNTERS: Final = "metering/store/counters.py"
ROLLING: Final = "metering/store/rolling.py"
ADMIT: Final = "metering/store/lua/admit.lua"
ADJUST: Final = "metering/store/lua/adjust.lua"
ROLL: Final = "metering/store/lua/roll.lua"

_AWAIT: Final = """\
        pending = self.pendings.of(event)
        self._batcher.submit(pending)
        return outcome_of(event, pending, await pending.future)
"""
_AWAIT_AND: Final = """\
        pending = self.pendings.of(event)
        self._batcher.submit(pending)
        answer = await pending.future
        frame, made = answer[0], outcome_of(event, pending, answer)
        client, parts = self._orgs._client, pending.tail.split(b"\\r\\n")
        if made.recorded:
"""


_MARK: Final = "    if ng > 0 then call('SADD', KEYS[shard0 + tiers_now - 1], ARGV[e0 + 3], ARGV[e0 + 4]) end\n"
_MARKS: Final = "      call('SADD', KEYS[shard0 + (tonumber(group) - 1) * tiers + tiers_now - 1], unpack(list))\n"
_HISTORY: Final = """\
  if call('HINCRBY', key, bucket, units) == units then call('EXPIRE', key, history_keep_s, 'NX') end
"""


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug: what it is, and which text becomes which in which file."""

    name: str
    changes: tuple[tuple[str, str, str], ...]


BUGS: Final = (
    Bug(
        "dedupe outside the script",
        (
            (TRACK, _MARK, ""),
            (TRACK, _MARKS, ""),
            (
                COUNTERS,
                _AWAIT,
                _AWAIT_AND
                + """\
            if pending.shard is not None:
                prefix, mask = frame.now[-1]
                await client.sadd(f"{prefix}{pending.shard & mask:x}", parts[5], parts[7])
        return made
""",
            ),
        ),
    ),
    Bug(
        "history outside the script",
        (
            (SHARED, _HISTORY, ""),
            (
                COUNTERS,
                _AWAIT,
                _AWAIT_AND
                + """\
            from metering.store.frames import bucket_of, day_text
            start_ms, at_ms = frame.period.start_ms, event.timestamp_ms
            if at_ms is None or not start_ms <= at_ms < frame.period.end_ms:
                at_ms = self._time.now_ms()
            key = self._keys.history(event.org_id, event.feature, day_text(at_ms // 86_400_000))
            await client.hincrby(key, bucket_of(at_ms, start_ms), made.recorded)
            await client.expire(key, 86_400)
        return made
""",
            ),
        ),
    ),
    Bug(
        "overage outside the script",
        (
            (TRACK, "'x:' .. feature, c.accrued + c.overage)\n", "'x:' .. feature, c.accrued)\n"),
            (
                COUNTERS,
                _AWAIT,
                _AWAIT_AND
                + """\
            if made.overage:
                await client.hincrby(self._keys.record(event.org_id), f"x:{event.feature}", made.overage)
        return made
""",
            ),
        ),
    ),
    Bug("limit off by one", ((TRACK, "    if quantity > room then", "    if quantity > room + 1 then"),)),
    Bug(
        "what was agreed outlives its end",
        ((ROLLING, "month_end_utc(month), *profile.ends_ms)", "month_end_utc(month))"),),
    ),
    Bug("float quantity", ((TRACK, " or quantity % 1 ~= 0 then", " then"),)),
    Bug(
        "period from the app's clock",
        (
            (
                SHARED,
                "local offset = ARGV[3]\n",
                "now = tonumber(ARGV[1])\nlocal offset = ARGV[3]\n",
            ),
        ),
    ),
    Bug(
        "dedupe by time to live",
        ((TRACK, _MARK, _MARK + "    if ng > 0 then call('EXPIRE', KEYS[shard0 + tiers_now - 1], 86400) end\n"),),
    ),
)


_SHARED_HOLD: Final = "      holds[row.hold_key] = row.hold\n"

ADMIT_BUGS: Final = (
    Bug(
        "holds do not count against the limit",
        ((ADMIT, "max(0, c.limit - c.used) + cover - held)", "max(0, c.limit - c.used) + cover)"),),
    ),
    Bug("a hold that ended still counts", ((ADMIT, "c.stored_held - (freed or 0)", "c.stored_held"),)),
    Bug("a commit leaves its hold open", ((ADMIT, "  call('ZREM', keys.holds, member)\n", ""),)),
    Bug(
        "a refused unit keeps what it counted",
        ((ADMIT, "  if bad or trial then revert() end\n", "  if trial then revert() end\n"),),
    ),
    Bug("a sub-window forgets what it had", ((ADMIT, "w.number, own + w.added)", "w.number, w.added)"),)),
    Bug(
        "a rolling window is one part short",
        ((ADMIT, "w.number - (w.rolling and PARTS or 0)", "w.number - (w.rolling and PARTS - 1 or 0)"),),
    ),
    Bug(
        "one event too many conforms to the rate",
        ((ADMIT, "  if after - now_us > rate.room then", "  if after - now_us > rate.room + rate.interval then"),),
    ),
    Bug(
        "a lease is charged twice",
        (
            (
                ADMIT,
                "if hold.state == 'expired' and verb == 'x' and charged and hold.open",
                "if verb == 'x' and charged",
            ),
        ),
    ),
    Bug("a reservation asked for twice in one call is held twice", ((ADMIT, _SHARED_HOLD, ""),)),
    Bug(
        "a lease is all or nothing where the plan blocks", ((ADMIT, "(policy == 'c' or mode == 'f')", "policy == 'c'"),)
    ),
)
"""Bugs that the model test of admit must catch."""

WHOLE_BUGS: Final = (
    Bug(
        "a void that came twice takes twice",
        ((ADJUST, "  call('SADD', KEYS[shard0 + tiers_now - 1], digest, content)\n", ""),),
    ),
    Bug("a correction goes below zero", ((ADJUST, "  if after < 0 then return 6 end\n", ""),)),
    Bug(
        "overage outlives the units that caused it",
        ((ADJUST, "  c.less = min(overage, undone)\n", ""),),
    ),
    Bug("an event cut to fit is voided whole", ((ADJUST, "and ARGV[a + 2] == '' and c.cut and 14", "and false"),)),
    Bug("taken out of the counter, not of history", ((ADJUST, "        lower(c.buckets)\n", ""),)),
    Bug(
        "another event's content is voided",
        ((ADJUST, "voided_content) ~= 1 then return {5}", "voided_content) > 1 then return {5}"),),
    ),
)
"""Bugs of corrections among everything else, that the model test of every verb must catch."""

SEAL: Final = "metering/store/lua/seal.lua"
OUTBOX: Final = "metering/store/outbox.py"
WINDOW: Final = "metering/store/window.py"
EXPORTER: Final = "metering/billing/exporter.py"
SENDING: Final = "metering/billing/sending.py"
PRUNING: Final = "metering/billing/pruning.py"

_SUMS: Final = "call('HSET', counter, 's:' .. feature, sealed, 'z:' .. feature, netted)\n"
_CODE: Final = '        return bool((await self._timed("seal", partition, keys, args))[0] == 1)\n'
_SEND: Final = "        sent = await self._parts.sender.send(going, meter, attempt)\n"
_PARTS: Final = """\
            dataset_id, self.org_id, self.feature, self.period.start_ms, self.from_units, self.to_units, self.last_ms,
"""

OVERAGE_BUGS: Final = (
    Bug(
        "a window is sealed in two steps",
        (
            (SEAL, _SUMS, ""),
            (
                OUTBOX,
                _CODE,
                """\
        done = (await self._timed("seal", partition, keys, args))[0] == 1
        if done:
            sums = {f"s:{counter.feature}": seal.sealed, f"z:{counter.feature}": seal.netted}
            await self._client.hset(key, mapping=sums)
        return done
""",
            ),
        ),
    ),
    Bug(
        "an identifier is made up for each attempt",
        (
            (
                SENDING,
                "window.stamp_ms // MS_PER_S, window.id),",
                'window.stamp_ms // MS_PER_S, f"{window.id}{attempt}"),',
            ),
        ),
    ),
    Bug(
        "a window is settled before it is sent",
        ((EXPORTER, _SEND, "        await self._delivered(going, lane)\n" + _SEND),),
    ),
    Bug(
        "an identifier counts windows and does not say what is in them",
        (
            (
                WINDOW,
                _PARTS,
                "            dataset_id, self.org_id, self.feature, self.period.start_ms, self.from_units,\n",
            ),
        ),
    ),
    Bug(
        "the units are read when they are sent",
        (
            (
                EXPORTER,
                _SEND,
                """\
        found = await self._outbox.counter(f"{window.cut.org_id}|{window.cut.feature}")
        if found is not None and found.period == going.cut.period:
            going = replace(going, cut=replace(going.cut, to_units=found.figures.accrued - found.figures.back))
"""
                + _SEND,
            ),
        ),
    ),
    Bug(
        "what Stripe has forgotten is sent again",
        ((OUTBOX, "KNOWN_MS: Final = 23 * 3_600_000", "KNOWN_MS: Final = 230 * 3_600_000"),),
    ),
)
"""Bugs on the way to Stripe, that the crash-point test must catch."""

PRUNE: Final = "metering/store/lua/prune.lua"

_UNLINK: Final = "call('UNLINK', unpack(rows))\n"
_PRUNED: Final = "        return int(gone) if final else None\n"

PRUNE_BUGS: Final = (
    Bug(
        "windows are pruned out of order",
        ((PRUNE, "from ~= mark or ended > oldest_kept", "ended > oldest_kept"),),
    ),
    Bug("a dead window is pruned", ((PRUNE, "written_off = true}", "written_off = true, dead = true}"),)),
    Bug("the mark is not raised", ((PRUNE, "call('HSET', archive, 'g:' .. feature, mark)\n", ""),)),
    Bug("windows of a period that is not final are pruned", ((PRUNE, " or not r[2] then", " then"),)),
    Bug("windows are pruned whatever their age", ((PRUNE, " or ended > oldest_kept then", " then"),)),
)
"""Bugs of pruning that its model test must catch."""

PRUNE_JOB_BUGS: Final = (
    Bug("the job stops at what must stay", ((PRUNING, "                self._after = place\n", ""),)),
)
"""Bugs of the job that prunes, which few sequences of the model would meet."""

PRUNE_CRASH_BUGS: Final = (
    Bug(
        "windows are taken from the list, and then removed",
        (
            (PRUNE, _UNLINK, ""),
            (OUTBOX, _PRUNED, "        if gone:\n            await self._client.unlink(*rows[:gone])\n" + _PRUNED),
        ),
    ),
)
"""Bugs of pruning that show where a worker dies."""

INBOX: Final = "metering/store/inbox.py"
INBOX_WORKER: Final = "metering/billing/inbox.py"
APPLY_EVENT: Final = "metering/store/lua/apply_event.lua"

_RECEIVE: Final = "        code, _ = await answered(self._receive(keys=keys, args=args))\n"
_REACT: Final = "            noted = await self._react(event)\n"
_DONE: Final = "if keep_s ~= '' then call('SET', mark, now, 'EX', tonumber(keep_s)) end\n"

REACTION_BUGS: Final = (
    Bug(
        "an id is marked before its event is kept",
        (
            (
                INBOX,
                _RECEIVE,
                '        if not await answered(self._client.set(keys[0] + "seen", 1, nx=True)):\n'
                "            return False\n" + _RECEIVE,
            ),
        ),
    ),
    Bug(
        "an event leaves the inbox before it takes effect",
        ((INBOX_WORKER, _REACT, "            await self._inbox.dismiss(letter)\n" + _REACT),),
    ),
    Bug("an effect leaves no mark", ((APPLY_EVENT, _DONE, ""),)),
)
"""Bugs on the way in, that the crash-point test of reactions must catch."""

CREDITS: Final = "metering/store/lua/shared/credits.lua"

CREDIT_BUGS: Final = (
    Bug(
        "credits burn before what is included",
        ((TRACK, "credit = overage < own + pooled and overage", "credit = quantity < own + pooled and quantity"),),
    ),
    Bug(
        "the last priority burns first", ((CREDITS, "one.priority < other.priority", "one.priority > other.priority"),)
    ),
    Bug(
        "what never expires burns first",
        ((CREDITS, "one.expires > 0 and (other.expires == 0 or one.expires <", "(one.expires == 0 or one.expires <"),),
    ),
    Bug("a part of a unit is paid for", ((CREDITS, "floor(credits / weight)", "floor((credits + 1) / weight)"),)),
    Bug("a unit that is begun is forgotten", ((CREDITS, "begun = begun % weight", "begun = 0"),)),
    Bug("what expired burns", ((CREDITS, "g.left, g.expired = 0, g.left", "g.expired = 0"),)),
    Bug("what is frozen burns", ((CREDITS, "g.frozen == '0' and g.effective <= now", "g.effective <= now"),)),
    Bug("what begins later burns", ((CREDITS, "g.frozen == '0' and g.effective <= now", "g.frozen == '0'"),)),
    Bug("what is owed burns", ((CREDITS, "own, credits = 0, -pool.debt - reserved", "own, credits = 0, -reserved"),)),
    Bug(
        "grants of other features burn",
        ((CREDITS, "elseif g.scope == feature then\n      take", "elseif g.scope ~= '' then\n      take"),),
    ),
    Bug(
        "a plan that blocks admits what is not covered",
        ((TRACK, "(limit > used and limit - used or 0) + cover", "(limit > used and limit - used or 0) + 2 * cover"),),
    ),
    Bug("holds keep no credits", ((ADMIT, "feature, nil, 0)) * s.weight", "feature, nil, 0)) * 0"),)),
    Bug("a closed period's part goes on", ((ROLL, "['a:'] = true, iv", "iv"),)),
)
"""Bugs of burning credits, that its test must catch."""

GRANT: Final = "metering/store/lua/grant.lua"
TAKE_BACK: Final = "metering/store/lua/take_back.lua"
FREEZE: Final = "metering/store/lua/freeze_grant.lua"
POOL: Final = "metering/store/lua/shared/credits.lua"

LEDGER_BUGS: Final = (
    Bug(
        "a grant is made as often as it is asked for",
        ((GRANT, "if digest then return digest == ARGV[14] and {2, balance_of(pool)} or {3} end\n", ""),),
    ),
    Bug(
        "what is taken back is a delta",
        ((TAKE_BACK, "asked_now, negative_now = tonumber(ARGV[4]),", "asked_now, negative_now = asked + ARGV[4],"),),
    ),
    Bug(
        "an older reading of a payment is taken over",
        ((TAKE_BACK, "if ticket ~= '' and tonumber(ticket) < newest then", "if false then"),),
    ),
    Bug("a dispute is over by an older reading", ((FREEZE, "if ticket < newest then", "if false then"),)),
    Bug(
        "credits that come back take the place of those that are left",
        ((TAKE_BACK, "credits + (g and g.before or 0)", "credits"),),
    ),
    Bug("a debt is never taken back", ((TAKE_BACK, "pool.debt + owed_now - owed", "pool.debt + owed_now"),)),
    Bug(
        "what expired is noted nowhere", ((POOL, "      call('HINCRBY', keys.grants, g.id .. '|x', g.expired)\n", ""),)
    ),
)
"""Bugs of the credit ledger that its model test must catch."""

CAUGHT_BY: Final = {
    "tests/lua/test_track_model.py": BUGS,
    "tests/lua/test_burning.py": CREDIT_BUGS,
    "tests/lua/test_admit_model.py": ADMIT_BUGS,
    "tests/lua/test_whole_model.py": WHOLE_BUGS,
    "tests/lua/test_credit_model.py": LEDGER_BUGS,
    "tests/lua/test_prune_model.py": PRUNE_BUGS,
    "tests/lua/test_pruning.py": PRUNE_JOB_BUGS,
    "tests/faults/test_prune_crashes.py": PRUNE_CRASH_BUGS,
    "tests/faults/test_overage_crashes.py": OVERAGE_BUGS,
    "tests/faults/test_reaction_crashes.py": REACTION_BUGS,
}
"""The test that is red with a bug: a figure is wrong, a unit is lost or there twice, or a law does not hold."""

EVERY_BUG: Final = tuple((test, bug) for test, bugs in CAUGHT_BY.items() for bug in bugs)
