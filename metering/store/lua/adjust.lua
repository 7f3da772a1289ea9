#!lua
-- adjust: correct counters of one organisation in its running period or a closed one: adjustments, voided events,
-- resets. Each correction once, all of its features or none.
--
-- KEYS   record, the period's record (the same again, or its archive), trail, dirty, totals, crossings, then clock when
--        ARGV[2] is given, and where it has credits: pool, burned, ledger, grants, lapsing, topups, open holds; then the shard of each tier of this month (the last one is written) and of the month
--        before, for the correction's digest; when an event is voided, the same for the event's; then per feature its
--        history day for each day of the period, and its minutes for each hour that has them
-- ARGV   caller's clock ms, test clock offset ms or '', claim, sealed name, seconds to keep history and minutes,
--        instant to correct at in ms ('' = now, or the end of a closed period), digest and content digest of the
--        correction, those of the event ('' none), '1' when the event must be of this month, first day and days,
--        first hour and hours of minutes (since the epoch), number of features, number of trail fields, the UTC day where
--        it has credits or '', the grant that credits given back make, what is kept of that; then per feature: name, change (units, 'all' or 'included'), '1' when the units are those that were recorded; then the
--        trail's fields and values, its type first
-- RETURNS code, then of 1, 2, 6, 8, 9 and 14 per feature: used, overage accrued and given back, units that credits paid
--        for, the same four after the correction, limit (-1 none), units held, trail entry ('' none; '!' and a code: the feature stands in the way)
--   code 1 done   2 done before   3 done before with other content   4 no such event   5 event of other content
--        6 below zero (of what would be)   8 no such feature   9 total not exact   10 corrupt   11 period is final
--        12 no such period   13 the event was counted before this period   14 some events were recorded in part: the units
--        recorded are needed
--        15 the instant lies outside the period, or ahead of now
--        7 stale, then: 1 no organisation, 2 other claim, 3 claim run out, 4 clock before the period, 5 shard full,
--        6 other test clock;   -1 clocks apart, then now
local call, read = redis.call, redis.pcall
local floor, max, min, sub, match, format = math.floor, math.max, math.min, string.sub, string.match, string.format
local TOTAL_MAX = 9007199254740991
local MARKS = {75, 80, 90, 100}
local SKEW_MAX_MS = 60000
local AHEAD_MAX_MS = 300000
local SHARD_MAX = 400
local CROSSINGS_MAX = 100000
local PRIORITY = 50
local BACK = '^cg_back_'
local MINUTE_MS, HOUR_MS, DAY_MS = 60000, 3600000, 86400000

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
if math.abs(now - tonumber(ARGV[1])) > SKEW_MAX_MS then return {-1, now} end

-- Made where an organisation has credits.
local function credits_made()
--@ credits
  return {
    pool_of = pool_of, cover_of = cover_of, burn = burn, put = put, wrong = pool_wrong, write = write_burns,
    line = ledger_line, text = grant_text, balance = balance_of, spent_of = spent_of, spent_text = spent_text,
  }
end

local record, period, trail, dirty, totals, crossings = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local shard0 = 7
if ARGV[2] ~= '' then
  if read('GET', KEYS[7]) ~= ARGV[2] then return {7, 6} end
  now, shard0 = now + tonumber(ARGV[2]), 8
end
local credits, pool, keys
if ARGV[19] ~= '' then
  credits = credits_made()
  keys = {
    pool = KEYS[shard0], burned = KEYS[shard0 + 1], ledger = KEYS[shard0 + 2], grants = KEYS[shard0 + 3],
    lapsing = KEYS[shard0 + 4], topups = KEYS[shard0 + 5], crossings = crossings, holds = KEYS[shard0 + 6],
  }
  shard0 = shard0 + 7
  pool = credits.pool_of(keys.pool)
  if not pool then return {10} end
end
local claim, closed = ARGV[3], period ~= record
local history_keep_s, minutes_keep_s = tonumber(ARGV[5]), tonumber(ARGV[6])
local digest, content, voided, voided_content = ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local first_day, days, first_hour, hours = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local features, entry_fields = tonumber(ARGV[17]), tonumber(ARGV[18])
local day_paid, back_id, back_details = ARGV[19], ARGV[20], ARGV[21]
local a0 = 22
local entry0 = a0 + 3 * features

local stored = read('HMGET', record, 'k', 'plan', 'ps')
if stored.err then return {10} end
if not stored[1] then return {7, 1} end
if stored[1] ~= claim then return {7, 2} end
local valid_until, tiers_now, tiers_before = match(claim, '^(%d+):(%d)(%d):')
if now >= tonumber(valid_until) then return {7, 3} end
if now < tonumber(stored[3]) then return {7, 4} end
local plan = stored[2]
tiers_now = tonumber(tiers_now)
local tiers = tiers_now + tonumber(tiers_before)
local day0 = shard0 + tiers * (voided == '' and 1 or 2)

local span = read('HMGET', period, 'ps', 'pe', 'final')
if span.err then return {10} end
if not span[1] then return {12} end
local start_ms, end_ms = tonumber(span[1]), tonumber(span[2])
if not (start_ms and end_ms) then return {10} end

-- ── reads ───────────────────────────────────────────────────────────────────────────────────────────────

-- Which of an id's shards, from 0, holds the digest; nil where none does, false where one is no set.
local function place_of(from, wanted)
  for s = 0, tiers - 1 do
    local found = read('SISMEMBER', KEYS[from + s], wanted)
    if type(found) == 'table' then return false end
    if found == 1 then return s end
  end
  return nil
end

local function number_of(text)
  return text == false and 0 or match(text or '', '^%d+$') and tonumber(text) or nil
end

-- One feature's counter as it is; nil where a figure is no number.
local function counter_of(feature)
  local r = call('HMGET', period, 'l:' .. feature, 'c:' .. feature, 'u:' .. feature, 'x:' .. feature, 's:' .. feature,
    'y:' .. feature, 't:' .. feature, 'h:' .. feature, 'a:' .. feature, 'v:' .. feature, 'f:' .. feature)
  local c = {
    feature = feature, known = r[1] or r[3], rule = r[1], cut = r[2], limit = tonumber(r[1] or -1),
    used = number_of(r[3]), accrued = number_of(r[4]), sealed = number_of(r[5]), back = number_of(r[6]),
    at = number_of(r[7]), held = closed and 0 or number_of(r[8]), credit = number_of(r[9]),
    weight = r[10] and number_of(r[10]), delta = 0, more = 0, less = 0, paid = 0, unpaid = 0, entry = '',
    back_own = 0, back_pooled = 0,
  }
  if pool and c.credit then
    c.own, c.pooled = credits.spent_of(r[11], c.credit, c.weight or nil)
    if not c.own or c.own > c.credit then return nil end
  end
  return (not r[10] or c.weight) and c.credit and c.limit and c.used and c.accrued and c.sealed and c.back and c.at and c.held and c or nil
end

-- Which credits come back for units that are no longer paid: those of the pool first, at what each unit cost, then those
-- of grants for the feature alone. A rest that is no whole credit a unit comes back with the last of them.
local function give_back_of(c)
  local paid = c.credit - c.own
  local units = min(c.unpaid, paid)
  c.back_pooled = units == paid and c.pooled or units * floor(c.pooled / paid)
  c.back_own = c.unpaid - units
  c.own, c.pooled = c.own - c.back_own, c.pooled - c.back_pooled
end

-- Units of open holds by feature, less those of holds that ended by now, whether they were swept or not. Nil: corrupt.
local function held_by(fields)
  local ended, held = read('ZRANGEBYSCORE', keys.holds, '-inf', now), {}
  if ended.err then return nil end
  for field, units in pairs(fields) do
    if sub(field, 1, 2) == 'h:' then
      held[sub(field, 3)] = number_of(units)
      if not held[sub(field, 3)] then return nil end
    end
  end
  for i = 1, #ended do
    local _, feature, units, kind = match(ended[i], '^([^|]+)|([^|]+)|(%d+)|(%a)$')
    if not units or not held[feature] then return nil end
    if kind ~= 'c' then held[feature] = held[feature] - tonumber(units) end
  end
  return held
end

-- What open holds keep where the plan stops at the limit, as admit.lua has it: credits of the pool for those of other
-- features, and units of this one's, all of which are above the limit once it is passed. Nil: corrupt.
local function kept_from(c)
  local flat, old = read('HGETALL', record), {}
  for i = 1, #flat, 2 do old[flat[i]] = flat[i + 1] end
  local sum, own, by_feature = 0, 0, held_by(old)
  if not by_feature then return nil end
  for feature, held in pairs(by_feature) do
    local limit, weight = tonumber(old['l:' .. feature] or -1), tonumber(old['v:' .. feature] or '')
    local stops = limit >= 0 and sub(old['m:' .. feature] or 'o', -1) ~= 'o'
    if stops and feature == c.feature and not closed then
      own = held
    elseif stops and weight then
      local used = tonumber(old['u:' .. feature] or 0)
      local above = max(0, used + held - max(limit, used))
      sum = sum + max(0, above - credits.cover_of(pool, feature, nil, 0)) * weight
    end
  end
  return sum, own
end

-- What a correction does to a counter: the twin of plans/corrections.py. `delta` units, `more` overage accrued, `less`
-- of it given back; `paid` for by credits, `unpaid` again. Returns the code of what stands in its way.
local function decide(c, change)
  local overage = c.accrued - c.back
  if change == 'included' then
    c.delta = overage + c.credit - c.used
    return nil
  end
  c.delta = change == 'all' and -c.used or tonumber(change)
  local after = c.used + c.delta
  if after < 0 then return 6 end
  if after > TOTAL_MAX then return 9 end
  if c.delta > 0 then
    if c.limit >= 0 then c.more = max(0, after - max(c.limit, c.used)) end
    if c.more > 0 and pool then
      local reserved, kept = kept_from(c)
      if not reserved then return 10 end
      local own, pooled = credits.cover_of(pool, c.feature, c.weight, reserved)
      c.paid = max(0, min(c.more, own + pooled - kept))
      c.more = c.more - c.paid
      if c.paid > 0 then
        local sum, by_own = credits.burn(pool, c.feature, c.weight, c.paid, pooled, credits.put)
        c.own, c.pooled = c.own + by_own, c.pooled + sum - by_own
      end
    end
    return not c.rule and 8 or nil
  end
  local caused = c.limit < 0 and 0 or c.used - max(c.limit, after)
  local undone = max(0, min(overage + c.credit, caused), overage + c.credit - after)
  c.less = min(overage, undone)
  c.unpaid = undone - c.less
  if pool and c.unpaid > 0 then give_back_of(c) end
  return nil
end

-- The buckets of a hash that lie in the period, oldest first, added to `list`: `width` is what their names count.
-- False where a name or a figure is none.
local function add_buckets(list, key, from_ms, width)
  local flat, named = read('HGETALL', key), {}
  if flat.err then return false end
  for i = 1, #flat, 2 do
    local x, unit, inside = match(flat[i], '^(x?)(%d%d)%+?(%d*)$')
    if not unit or not match(flat[i + 1], '^%d+$') then return false end
    local name = x == '' and flat[i] or sub(flat[i], 2)
    local bucket = named[name]
    if not bucket then
      local at = from_ms + tonumber(unit) * width + (inside == '' and 0 or tonumber(inside))
      bucket = {key = key, name = name, at = at, units = 0, overage = 0, less = 0, less_overage = 0}
      named[name] = bucket
      -- A minute in which the period begins or ends may hold units of both sides.
      local reach = width == MINUTE_MS and width or 1
      if at + reach > start_ms and at < end_ms then list[#list + 1] = bucket end
    end
    bucket[x == '' and 'units' or 'overage'] = tonumber(flat[i + 1])
  end
  return true
end

local function earlier(one, other) return one.at < other.at end

-- Takes units and overage out of buckets: from the one that holds `at` back to the first, then forward from it.
-- Overage goes first and no bucket keeps more overage than units.
local function take(list, at, units, overage)
  table.sort(list, earlier)
  local from, order = #list, {}
  while from > 0 and list[from].at > at do from = from - 1 end
  for i = from, 1, -1 do order[#order + 1] = list[i] end
  for i = from + 1, #list do order[#order + 1] = list[i] end
  for i = 1, #order do
    local bucket = order[i]
    bucket.less_overage = min(bucket.overage, overage)
    overage = overage - bucket.less_overage
  end
  for i = 1, #order do
    local bucket = order[i]
    bucket.less = max(0, min(bucket.units - bucket.overage + bucket.less_overage, units))
    units = units - bucket.less
  end
end

-- What the same hours lose in their minutes, where there are any.
local function take_minutes(c, minutes0, at)
  c.minutes = {}
  for i = 1, #c.buckets do
    local bucket = c.buckets[i]
    local hour = floor(bucket.at / HOUR_MS)
    local place = hour - first_hour
    if bucket.less + bucket.less_overage > 0 and place >= 0 and place < hours then
      local list = {}
      if not add_buckets(list, KEYS[minutes0 + place], hour * HOUR_MS, MINUTE_MS) then return false end
      take(list, at, bucket.less, bucket.less_overage)
      for j = 1, #list do c.minutes[#c.minutes + 1] = list[j] end
    end
  end
  return true
end

-- Where units put in stand: the bucket of an hour, and of a minute where the hour has minutes.
local function put(c, at, feature0)
  local hour, inside = floor(at / HOUR_MS), start_ms % HOUR_MS
  local name = format('%02d', hour % 24)
  if inside > 0 and hour == floor(start_ms / HOUR_MS) then name = format('%02d+%.0f', hour % 24, inside) end
  local places = {{key = KEYS[feature0 + floor(at / DAY_MS) - first_day], name = name, keep_s = history_keep_s}}
  local place = hour - first_hour
  if place >= 0 and place < hours then
    local minute = format('%02d', floor(at / MINUTE_MS) % 60)
    places[2] = {key = KEYS[feature0 + days + place], name = minute, keep_s = minutes_keep_s}
  end
  for i = 1, #places do
    local r = read('HMGET', places[i].key, places[i].name, 'x' .. places[i].name)
    if r.err or not (number_of(r[1]) and number_of(r[2])) then return false end
  end
  c.places = places
  return true
end

local function fits(c, feature0, at)
  if c.delta > 0 then return put(c, at, feature0) end
  c.buckets = {}
  for day = 0, days - 1 do
    if not add_buckets(c.buckets, KEYS[feature0 + day], (first_day + day) * DAY_MS, HOUR_MS) then return false end
  end
  take(c.buckets, ARGV[7] == '' and end_ms or at, -c.delta, c.less)
  return take_minutes(c, feature0 + days, ARGV[7] == '' and end_ms or at)
end

-- The text with which a grant of an earlier correction began, which more may be added to; whether one is none.
local function begun_wrong()
  for _, g in ipairs(pool.list) do
    if match(g.id, BACK) and g.left > 0 then
      g.begun = read('HGET', keys.grants, g.id .. '|g')
      if type(g.begun) ~= 'string' or not match(g.begun, '^%d+:') then return true end
    end
  end
  return false
end

-- Whether one of the keys to write has another type, or a sum to add to is no number.
local function sums_wrong(counters)
  if pool and (credits.wrong(pool, keys, day_paid) or begun_wrong()) then return true end
  local lengths = {read('XLEN', trail), read('ZCARD', dirty), read('XLEN', crossings), read('HLEN', totals)}
  for i = 1, #lengths do
    if type(lengths[i]) == 'table' then return true end
  end
  for i = 1, #counters do
    local feature = counters[i].feature
    local sums = call('HMGET', record, 'b:' .. feature, 'p:' .. plan .. ':' .. feature)
    local shared = call('HMGET', totals, 'u:' .. plan .. ':' .. feature, 'c:' .. feature, 'e:' .. ARGV[entry0 + 1],
      'e:overage_started')
    for j = 1, 2 do
      if sums[j] and not match(sums[j], '^%-?%d+$') then return true end
    end
    for j = 1, 4 do
      if shared[j] and not match(shared[j], '^%d+$') then return true end
    end
  end
  return false
end

local own = place_of(shard0, digest)
if own == false then return {10} end
local code
if own then
  if read('SISMEMBER', KEYS[shard0 + own], content) ~= 1 then return {3} end
  code = 2
elseif span[3] then
  return {11}
end
local event = voided ~= '' and not own and place_of(shard0 + tiers, voided)
if event == false and voided ~= '' and not own then return {10} end
if voided ~= '' and not own then
  if not event then return {4} end
  if read('SISMEMBER', KEYS[shard0 + tiers + event], voided_content) ~= 1 then return {5} end
  if ARGV[12] == '1' and event >= tiers_now then return {13} end
end
local size = read('SCARD', KEYS[shard0 + tiers_now - 1])
if type(size) == 'table' then return {10} end
if not own and size > SHARD_MAX then return {7, 5} end

local at = ARGV[7] ~= '' and tonumber(ARGV[7]) or closed and end_ms - 1 or now
if not own and (at < start_ms or at >= end_ms or at > now + AHEAD_MAX_MS) then return {15} end
local counters = {}
for i = 1, features do
  local a = a0 + 3 * (i - 1)
  local c = counter_of(ARGV[a])
  if not c then return {10} end
  counters[i] = c
  if not code or code == 6 then
    local fault = not c.known and 8 or voided ~= '' and ARGV[a + 2] == '' and c.cut and 14
      or decide(c, ARGV[a + 1])
    if fault then code, c.entry = fault, format('!%d', fault) end
  end
end
if not code then
  for i = 1, features do
    if counters[i].delta ~= 0 and not fits(counters[i], day0 + (i - 1) * (days + hours), at) then return {10} end
  end
  if sums_wrong(counters) then return {10} end
end

-- ── writes: history first ───────────────────────────────────────────────────────────────────────────────

local function lower(list)
  for i = 1, #list do
    local b = list[i]
    if b.less > 0 then
      if b.less == b.units then call('HDEL', b.key, b.name) else call('HINCRBY', b.key, b.name, -b.less) end
    end
    if b.less_overage > 0 then
      local name = 'x' .. b.name
      if b.less_overage == b.overage then
        call('HDEL', b.key, name)
      else
        call('HINCRBY', b.key, name, -b.less_overage)
      end
    end
  end
end

local function raise(c)
  for i = 1, #c.places do
    local p = c.places[i]
    if call('HINCRBY', p.key, p.name, c.delta) == c.delta then call('EXPIRE', p.key, p.keep_s, 'NX') end
    if c.more > 0 then call('HINCRBY', p.key, 'x' .. p.name, c.more) end
  end
end

local function write_counter(c)
  local feature, after = c.feature, c.used + c.delta
  call('HSET', period, 'u:' .. feature, after)
  if c.more > 0 then call('HSET', period, 'x:' .. feature, c.accrued + c.more) end
  if c.less > 0 then call('HSET', period, 'y:' .. feature, c.back + c.less) end
  if c.paid + c.unpaid > 0 then
    call('HSET', period, 'a:' .. feature, c.credit + c.paid - c.unpaid)
    if pool then call('HSET', period, 'f:' .. feature, credits.spent_text(c.own, c.pooled)) end
  end
  if closed then
    call('HINCRBY', record, 'b:' .. feature, c.delta)
  else
    call('HSET', record, 't:' .. feature, max(now, c.at))
  end
  -- Sums that were shown never go back: units taken out stay under the plan, and are told in a sum of their own.
  if c.delta > 0 then
    call('HINCRBY', totals, 'u:' .. plan .. ':' .. feature, c.delta)
  else
    call('HINCRBY', record, 'p:' .. plan .. ':' .. feature, -c.delta)
    call('HINCRBY', totals, 'c:' .. feature, -c.delta)
  end
end

local function write_overage(c)
  -- What is given back of overage that is sealed waits for later overage to be netted with.
  if c.more == 0 then return end
  if c.accrued == c.sealed then
    local org = sub(record, string.find(record, ':o:', 1, true) + 3)
    local member = org .. '|' .. c.feature
    if closed then member = member .. '|' .. span[1] end
    call('ZADD', dirty, 'NX', now, member)
  end
  if c.accrued == 0 then
    call('XADD', trail, '*', 'type', 'overage_started', 'plan', plan, 'feature', c.feature,
      'used', c.used + c.delta, 'limit', c.limit, 'period', span[1], 'at', now)
    call('HINCRBY', totals, 'e:overage_started', 1)
  end
end

-- The grant of an earlier correction that is for the same and has credits left. Nil: none.
local function begun_of(scope)
  for _, g in ipairs(pool.list) do
    if g.begun and g.scope == scope and g.expires == 0 then return g end
  end
  return nil
end

-- Credits that were given back: for all features with a weight, or for one alone. They join those of an earlier
-- correction while it has some left, so that corrections never make more grants than there are features, and one.
local function give_back(scope, id, amount)
  local known = begun_of(scope)
  if known then
    known.left = known.left + amount
    local before, rest = match(known.begun, '^(%d+)(:.+)$')
    known.begun = format('%.0f', tonumber(before) + amount) .. rest
    call('HSET', keys.grants, known.id .. '|g', known.begun)
    credits.line(keys, 'returned', known.id, amount, credits.balance(pool))
    return
  end
  pool.seq = pool.seq + 1
  local g = {
    id = id, left = amount, before = 0, priority = PRIORITY, effective = now, expires = 0, seq = pool.seq, scope = scope,
    frozen = '0', rollover = 0, kind = 'f', expired = 0, rolled = 0, usable = true, was_usable = true,
  }
  pool.list[#pool.list + 1] = g
  call('HSET', keys.pool, 'seq', pool.seq)
  call('HSET', keys.grants, id, back_details, id .. '|g', credits.text(g), id .. '|h', 'returned', id .. '|c', now)
  credits.line(keys, 'returned', id, amount, credits.balance(pool))
end

local function write_credits(counters)
  local pooled, own = 0, 0
  for i = 1, #counters do
    local c = counters[i]
    pooled, own = pooled + c.back_pooled, own + c.back_own
    if c.back_own > 0 then give_back(c.feature, back_id .. '_' .. c.feature, c.back_own) end
  end
  if pooled > 0 then give_back('', back_id, pooled) end
  if pooled > 0 or own > 0 or next(pool.burned) then
    credits.write(pool, keys, sub(record, string.find(record, ':o:', 1, true) + 3), day_paid, ARGV[4], start_ms)
  end
end

local function write_marks(c)
  if closed or c.delta <= 0 or c.limit < 0 then return end
  local before, after = c.used * 100, (c.used + c.delta) * 100
  for i = 1, 4 do
    local mark = MARKS[i] * c.limit
    if before < mark and mark <= after then
      call('XADD', crossings, 'MAXLEN', '~', CROSSINGS_MAX, '*', 'org', ARGV[4], 'feature', c.feature,
        'mark', MARKS[i], 'used', c.used + c.delta, 'limit', c.limit, 'period', start_ms, 'at', now)
    end
  end
end

local function write_entry(c)
  local told = {unpack(ARGV, entry0, entry0 + entry_fields - 1)}
  if pool then
    told[#told + 1], told[#told + 2] = 'credit_before', c.credit
    told[#told + 1], told[#told + 2] = 'credit_after', c.credit + c.paid - c.unpaid
  end
  c.entry = call('XADD', trail, '*', 'at', now, 'feature', c.feature, 'delta', c.delta, 'used_before', c.used,
    'used_after', c.used + c.delta, 'overage_before', c.accrued - c.back,
    'overage_after', c.accrued + c.more - c.back - c.less, 'limit', c.limit, 'period', span[1], unpack(told))
  call('HINCRBY', totals, 'e:' .. ARGV[entry0 + 1], 1)
end

if not code then
  code = 1
  for i = 1, features do
    local c = counters[i]
    if c.delta ~= 0 then
      if c.delta > 0 then
        raise(c)
      else
        lower(c.buckets)
        lower(c.minutes)
      end
    end
  end
  call('SADD', KEYS[shard0 + tiers_now - 1], digest, content)
  for i = 1, features do
    local c = counters[i]
    if c.delta ~= 0 then
      write_counter(c)
      write_overage(c)
      write_marks(c)
      write_entry(c)
    end
  end
  if pool then write_credits(counters) end
end

local out = {code}
for i = 1, features do
  local c = counters[i]
  local after, accrued, back = c.used + c.delta, c.accrued + c.more, c.back + c.less
  local cells = {
    c.used, c.accrued, c.back, c.credit, after, accrued, back, c.credit + c.paid - c.unpaid, c.limit, c.held, c.entry,
  }
  for j = 1, #cells do out[#out + 1] = cells[j] end
end
return out
