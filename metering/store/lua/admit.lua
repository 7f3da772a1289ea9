#!lua
-- admit: count, check, hold and settle where more than a plain counter decides. As track, and besides: sub-windows,
-- a rate limit, holds, units of several events that are admitted together or not at all, trials that write nothing,
-- closed periods, minutes, dimensions and a log of raw events. Used only where one of these is in use.
--
-- KEYS   per partition: crossings, dirty, totals, events, expiring, then clock when ARGV[3] is given
--        per organisation of it: as track, then open holds, state of windows, then its holds, archives, other keys
-- ARGV   as track's four, then seconds to keep minutes, ms to keep raw events
--        per partition: number of organisations
--        per organisation: as track, its events being rows here, then: the claim once it has holds ('' it has them),
--        numbers of holds, archives, other keys; then per row:
--        rows of the unit that begins here (0: it goes on), '1' for a further feature of the event above, verb
--        (t track, d trial, r reserve, c commit, l late commit, x charge what expired), mode ('' the plan's; f: what
--        fits, where the plan would refuse), hold, its name, its kind (r reservation, l lease, both of them nothing
--        at their end; c lease that is charged then), its ms to live, archive, other key of the minutes, their bucket
--        ('' now), box of the raw event ('' none), dimensions; then per dimension: other keys of its units and its
--        values, most values, value
-- RETURNS now, then per row: code, used, extra, units held, what decided (0 the plan, n its n-th sub-window), ms until
--        that gives way (0 not told), events left under the rate limit (-1 none), ms until it is full again, overage of
--        what was capped, credits burned, or of a refusal those that could be used (-1 they do not pay for the feature);
--        only {now, -1} clocks apart, {now, -2} other day
--   codes as track's, and 11 too many events for the rate (extra = ms to wait)  12 another row of the unit was refused
--        13 no such open hold: extra 1 unknown, 2 expired, 3 settled  14 too many open holds
--        7 stale also: used = 8 a closed period that is not there, or final
--@ counting

-- Made where an organisation burns credits: most calls never need it.
local function credits_made()
--@ credits
  return {
    pool_of = pool_of, cover_of = cover_of, has_own = has_own, burn = burn, wrong = pool_wrong, write = write_burns,
    spent_of = spent_of, spent_text = spent_text,
  }
end
local credits

local gmatch, max, min, ceil = string.gmatch, math.max, math.min, math.ceil
local HOLDS_MAX, HOLD_KEEP_S, VALUES_KEEP_S, PARTS = 1000, 86400, 6048000, 60
local PER_MS = {minute = 60000, hour = 3600000, day = 86400000, week = 604800000}
local MONDAY_MS = 345600000
local STRICTNESS = {o = 1, c = 2, b = 3}
local minutes_keep_s, events_keep_ms = tonumber(ARGV[5]), tonumber(ARGV[6])
a = 7

local CELLS = 10

local function tell(code, used, extra, held, by, until_ms, left, full_ms, overage, burned)
  local cells = {
    code, used, extra or 0, held or 0, by or 0, until_ms or 0, left or -1, full_ms or 0, overage or 0, burned or 0,
  }
  for i = 1, CELLS do out[o + i] = cells[i] end
  o = o + CELLS
end

local function answer_all(rows, code, used)
  for _ = 1, rows do tell(code, used) end
end

-- ── tentative changes ───────────────────────────────────────────────────────────────────────────────────
local undo

local function set(place, field, value)
  undo[#undo + 1] = {place, field, place[field]}
  place[field] = value
end

local function revert()
  for i = #undo, 1, -1 do undo[i][1][undo[i][2]] = undo[i][3] end
  undo = {}
end

-- ── sub-windows and the rate ────────────────────────────────────────────────────────────────────────────

-- One sub-window as the state holds it: what was used in it so far. Nil where the state is corrupt.
local function window_of(key, feature, limit, per, rolling)
  local w = {limit = tonumber(limit), per = PER_MS[per], rolling = rolling ~= '', used = 0, added = 0, parts = {}}
  w.field = feature .. '|' .. per .. rolling
  w.part = w.rolling and w.per / PARTS or w.per
  local shift = per == 'week' and not w.rolling and MONDAY_MS or 0
  w.number = floor((now - shift) / w.part)
  w.ends = (w.number + 1) * w.part + shift
  local stored = read('HGET', key, w.field)
  if type(stored) == 'table' then return nil end
  local oldest = w.number - (w.rolling and PARTS or 0)
  for number, units in gmatch(stored or '', '(%d+):(%d+)') do
    number, units = tonumber(number), tonumber(units)
    if number >= oldest then
      w.used = w.used + units
      w.parts[#w.parts + 1] = {number, units}
    end
  end
  return w
end

-- When so many units have left a window that `wanted` fit: the first instant that may help, not the last.
local function gives_way(w, wanted)
  if not w.rolling then return w.ends - now end
  local over = w.used + wanted - w.limit
  for i = 1, #w.parts do
    over = over - w.parts[i][2]
    if over <= 0 then return (w.parts[i][1] + PARTS + 1) * w.part - now end
  end
  return w.per + w.part
end

local function write_window(key, w)
  local texts, own = {}, 0
  for i = 1, #w.parts do
    if w.parts[i][1] == w.number then own = w.parts[i][2]
    else texts[#texts + 1] = format('%.0f:%.0f', w.parts[i][1], w.parts[i][2]) end
  end
  texts[#texts + 1] = format('%.0f:%.0f', w.number, own + w.added)
  call('HSET', key, w.field, table.concat(texts, ','))
end

-- The rate limit of an organisation (GCRA): nil none, false corrupt.
local function rate_of(record, key, text)
  if not text or text == '' then return nil end
  local interval, burst = match(text, '^(%d+):(%d+):')
  local tat = read('HGET', key, 'rate')
  if not interval or type(tat) == 'table' or tat and not tonumber(tat) then return false end
  local room = tonumber(burst) * tonumber(interval)
  -- No rate puts it further ahead than its room: what does was left by a slower rate, or by a clock that went back.
  return {interval = tonumber(interval), room = room, tat = min(tonumber(tat or 0), now * 1000 + room)}
end

-- Takes one event's share of the rate; the ms to wait where there is none.
local function conforms(rate)
  local now_us = now * 1000
  local after = max(rate.tat, now_us) + rate.interval
  if after - now_us > rate.room then return ceil((after - now_us - rate.room) / 1000) end
  set(rate, 'tat', after)
  set(rate, 'moved', true)
  return nil
end

-- Events left now, and ms until all of the burst is free again.
local function rate_left(rate)
  if not rate then return -1, 0 end
  local ahead = max(0, rate.tat - now * 1000)
  return floor(max(0, rate.room - ahead) / rate.interval), ceil(ahead / 1000)
end

-- ── decisions ───────────────────────────────────────────────────────────────────────────────────────────

-- Credits of the pool that open holds keep of it, but for those of counter `c`: the twin of plans/credits.py.
local function reserved_of(org, c)
  local sum = 0
  for feature, s in pairs(org.standings()) do
    if s ~= c and s.weight and s.limit >= 0 and s.held > 0 and sub(s.mode, -1) ~= 'o' then
      local above = max(0, s.used + s.held - max(s.limit, s.used))
      sum = sum + max(0, above - credits.cover_of(org.pool, feature, nil, 0)) * s.weight
    end
  end
  return sum
end

-- What credits pay for where a row may go above the limit of its counter: units by grants for the feature alone, units
-- by the pool, the pool's credits. Nil where the pool is corrupt.
local function cover_of(row, org)
  local c = row.counter
  if not org.paying or c.limit < 0 or c.used + c.held + row.quantity <= c.limit then return 0, 0, 0 end
  credits = credits or credits_made()
  org.pool = org.pool or credits.pool_of(org.paying.pool)
  if not org.pool then return nil end
  if not c.own then c.own, c.pooled = credits.spent_of(c.spent, c.credit, c.weight) end
  if not c.own then return nil end
  return credits.cover_of(org.pool, c.feature, c.weight, reserved_of(org, c))
end

-- How many units fit (nil: any number), and which limit leaves the least: the twin of plans/limits.py.
local function room_of(c, held, mode, cover)
  local room, by
  if c.limit >= 0 and mode ~= 'o' then room, by = max(0, max(0, c.limit - c.used) + cover - held), 0 end
  for i, w in ipairs(c.windows) do
    local left = max(0, w.limit - w.used - held)
    if not room or left < room then room, by = left, i end
  end
  return room, by or 0
end

-- How many units of an event are admitted, and what decided. `own` units of a hold that it settles always fit.
local function admitted(c, quantity, held, own, mode, cover)
  local own_mode = sub(c.mode, -1)
  local policy = STRICTNESS[mode] and STRICTNESS[mode] > STRICTNESS[own_mode] and mode or own_mode
  local room, by = room_of(c, held, policy, cover)
  if not room or quantity <= max(room, own) then return quantity, by end
  return (policy == 'c' or mode == 'f') and max(room, own) or 0, by
end

local function refused(row, code, extra)
  row.code, row.extra = code, extra or 0
  return code
end

-- How a hold is named among the open ones.
local function member_of(name, feature, quantity, kind)
  return name .. '|' .. feature .. '|' .. format('%.0f', quantity) .. '|' .. kind
end

-- The hold of a row; its state by now: nil none, 'held', 'expired', or how it was settled. Second: whether it is corrupt.
-- What is among the open holds is open, or waits to be charged; nothing else is, whatever a clock that went back says.
local function hold_of(row, holds)
  local r = read('HMGET', row.hold_key, 'feature', 'quantity', 'kind', 'status', 'asked')
  if r.err then return nil, true end
  local hold = {}
  if r[4] then
    hold = {feature = r[1], quantity = tonumber(r[2]), kind = r[3], state = r[4], asked = tonumber(r[5]), kept = true}
    if not (hold.feature and hold.quantity and hold.kind) then return nil, true end
  elseif row.verb == 'x' then -- what was charged so late that nothing but its place is left
    hold = {feature = row.feature, quantity = row.quantity, kind = 'c', state = 'held'}
  end
  if hold.state ~= 'held' then return hold, false end
  local ends = read('ZSCORE', holds, member_of(row.hold_name, hold.feature, hold.quantity, hold.kind))
  if type(ends) == 'table' then return nil, true end
  hold.open = ends ~= false
  if not ends or tonumber(ends) <= now then hold.state = 'expired' end
  return hold, false
end

-- Whether a row may settle its hold: the units it brings, or the refusal's reason. What is charged at its end is
-- charged once it ended, and settled by nobody else.
local function settles(row)
  local hold, verb = row.hold, row.verb
  local charged = hold.kind == 'c'
  if not hold.state or hold.feature ~= row.feature then return 0, 1 end
  if hold.state == 'held' and verb ~= 'x' then return hold.quantity, nil end
  if hold.state == 'expired' and verb == 'x' and charged and hold.open then return hold.quantity, nil end
  if hold.state == 'expired' and verb == 'l' and not charged then return 0, nil end
  return 0, (hold.state == 'expired' or hold.state == 'held') and 2 or 3
end

-- What a new hold of a row meets: a code where it is not made.
local function hold_met(row, open)
  local hold = row.hold
  if hold.state then
    local same = hold.feature == row.feature and hold.asked == row.quantity
    return same and (hold.kind == 'r') == (row.hold_kind == 'r') and 2 or 3
  end
  return open >= HOLDS_MAX and 14 or nil
end

-- What becomes of the hold of a row that is admitted; the next row of this call that names it sees that.
local function note_hold(row, recorded)
  local hold, verb = row.hold, row.verb
  if verb ~= 'r' then return set(hold, 'state', verb == 'x' and 'charged' or 'committed') end
  set(hold, 'state', 'held')
  set(hold, 'feature', row.feature)
  set(hold, 'quantity', recorded)
  set(hold, 'asked', row.quantity)
  set(hold, 'kind', row.hold_kind)
  set(hold, 'kept', true)
end

-- Decides one row and notes its effect. Returns its code: 1 and 5 admitted, 2 a repeat, anything else refused.
local function decide(row, first, org)
  local c, quantity, verb = row.counter, row.quantity, row.verb
  if row.further and (first.code == 2 or first.code == 3) then return refused(row, first.code) end
  if not quantity or quantity < 1 or quantity > QUANTITY_MAX or quantity % 1 ~= 0 then return refused(row, 6) end
  if not c then return refused(row, 8) end
  if row.replay then
    row.bits, row.burned = floor(row.replay[1] / 16), row.replay[4]
    return refused(row, row.replay[1] % 16, row.replay[3])
  end
  if verb == 'r' then
    local met = hold_met(row, org.open)
    if met then return refused(row, met) end
  end
  local replay = row.digest ~= '' and org.seen[row.digest]
  if replay or row.hit then
    local same
    if replay then same = replay == row.content else same = call('SISMEMBER', row.hit, row.content) == 1 end
    return refused(row, verb ~= 'r' and same and 2 or 3)
  end
  local own, why = 0, nil
  if row.hold and verb ~= 'r' then
    own, why = settles(row)
    if why then return refused(row, 13, why) end
  end
  if sub(c.mode, 1, 1) == 'x' and quantity > own then return refused(row, 9) end
  if org.rate and not row.further and (verb == 't' or verb == 'd' or verb == 'r') then
    local wait = conforms(org.rate)
    if wait then return refused(row, 11, wait) end
  end
  local granted, pooled, usable = cover_of(row, org)
  if not granted then
    org.corrupt = true
    return refused(row, 4)
  end
  local cover = granted + pooled
  local recorded, by = admitted(c, quantity, c.held - own, own, row.mode, cover)
  row.by = by
  if recorded < quantity and by > 0 then row.until_ms = gives_way(c.windows[by], quantity) end
  if recorded == 0 then
    local pays = org.pool and (c.weight or credits.has_own(org.pool, c.feature))
    row.burned = pays and granted + (c.weight and usable or 0) or -1
    return refused(row, 4)
  end
  if verb == 'r' then
    set(c, 'held', c.held + recorded)
    set(org, 'open', org.open + 1)
    set(row, 'recorded', recorded)
    note_hold(row, recorded)
    row.code = recorded == quantity and 1 or 5
    row.extra = row.code == 5 and recorded or 0
    return row.code
  end
  local code, above, bits = effect(c, recorded, quantity)
  if code == 6 then return refused(row, 6) end
  if c.archive then bits = 0 end
  set(c, 'held', c.held - own)
  set(c, 'used', c.used + recorded)
  set(c, 'recorded', c.recorded + recorded)
  local credit = min(above, cover)
  local overage = above - credit
  set(c, 'overage', c.overage + overage)
  if credit > 0 then
    local by_own
    row.burned, by_own = credits.burn(org.pool, c.feature, c.weight, credit, pooled, set)
    set(c, 'credit', c.credit + credit)
    set(c, 'own', c.own + by_own)
    set(c, 'pooled', c.pooled + row.burned - by_own)
    set(c, 'paid', true)
  end
  if code == 5 then set(c, 'cut', true) end
  for _, w in ipairs(c.windows) do
    set(w, 'used', w.used + recorded)
    set(w, 'added', w.added + recorded)
  end
  set(row, 'recorded', recorded)
  set(row, 'overage', overage)
  set(row, 'bits', bits)
  if row.hold then note_hold(row, recorded) end
  if row.digest ~= '' and not row.further then set(org.seen, row.digest, row.content) end
  row.code, row.extra, row.used = code, code == 5 and recorded or overage, c.used
  return code
end

-- Decides the rows of one unit: all of them, or none.
local function decide_unit(rows, from, to, org)
  undo = {}
  local first, bad = nil, nil
  for i = from, to do
    local row = rows[i]
    if not row.further then first = row end
    local code = decide(row, first, org)
    row.used = row.counter and row.counter.used or 0
    row.held = row.counter and row.counter.held or 0
    row.left, row.full_ms = rate_left(org.rate)
    if code ~= 1 and code ~= 2 and code ~= 5 then
      bad = row
      break
    end
  end
  local trial = rows[from].verb == 'd'
  if bad or trial then revert() end
  if bad then
    for i = from, to do
      local row = rows[i]
      if row ~= bad then row.code, row.extra, row.bits, row.burned = 12, 0, 0, 0 end
      row.used = row.counter and row.counter.used or 0
      row.held = row.counter and row.counter.held or 0
      row.left, row.full_ms = rate_left(org.rate)
    end
    bad.bits = 0
  end
  for i = from, to do
    local row = rows[i]
    row.bits = row.bits or 0
    org.counted = org.counted or row.recorded and row.verb ~= 'd'
  end
end

-- ── reading ─────────────────────────────────────────────────────────────────────────────────────────────

-- The rows of an organisation, and where its arguments end. Their keys follow `hold0`, `archive0` and `other0`.
local function rows_of(e0, r0, rows, hold0, archive0, other0)
  local list, r = {}, r0
  for i = 1, rows do
    local e = e0 + 7 * (i - 1)
    local row = {
      group = ARGV[e], feature = ARGV[e + 1], quantity = tonumber(ARGV[e + 2]), digest = ARGV[e + 3],
      content = ARGV[e + 4], day = tonumber(ARGV[e + 5]), bucket = ARGV[e + 6], unit = tonumber(ARGV[r]),
      further = ARGV[r + 1] == '1', verb = ARGV[r + 2], mode = ARGV[r + 3], hold_name = ARGV[r + 5],
      hold_kind = ARGV[r + 6], hold_ms = tonumber(ARGV[r + 7]), minute = ARGV[r + 10], box = ARGV[r + 11], dims = {},
    }
    local hold, archive, minutes = tonumber(ARGV[r + 4]), tonumber(ARGV[r + 8]), tonumber(ARGV[r + 9])
    row.hold_key = hold > 0 and KEYS[hold0 + hold - 1]
    row.archive = archive > 0 and KEYS[archive0 + archive - 1]
    row.minutes = minutes > 0 and KEYS[other0 + minutes - 1]
    local d = r + 13
    for n = 1, tonumber(ARGV[r + 12]) do
      row.dims[n] = {
        units = KEYS[other0 + tonumber(ARGV[d]) - 1], values = KEYS[other0 + tonumber(ARGV[d + 1]) - 1],
        most = tonumber(ARGV[d + 2]), value = ARGV[d + 3],
      }
      d = d + 4
    end
    list[i], r = row, d
  end
  return list, r
end

-- The answer that an event without an id was given when it was first counted: its code, used and extra.
local function replay_of(row, minted0)
  if row.group ~= '0' or row.digest == '' then return nil, false end
  local text = read('HGET', KEYS[minted0], row.digest) or read('HGET', KEYS[minted0 + 1], row.digest)
  if type(text) == 'table' then return nil, true end
  if not text then return nil, false end
  local code, used, extra, burned = match(text, '^(%d+):(%d+):(%d+):?(%d*)$')
  return {tonumber(code), tonumber(used), tonumber(extra), tonumber(burned)}, false
end

-- The counter of a feature in the record or an archive, with its windows; whether it is corrupt.
local function full_counter(key, state, feature, archive, freed)
  local _, c, corrupt = counter_of(key, feature)
  if corrupt or not c then return false, corrupt end
  local more = read('HMGET', key, 'h:' .. feature, 'w:' .. feature, 'v:' .. feature, 'a:' .. feature, 'f:' .. feature)
  c.key, c.feature, c.archive, c.windows = key, feature, archive, {}
  c.weight, c.credit, c.spent = more[3] and tonumber(more[3]), tonumber(more[4] or 0), more[5]
  c.stored_held = tonumber(more[1] or 0)
  if more[3] and not c.weight or not c.credit or not c.stored_held or c.stored_held < (freed or 0) then return false, true end
  c.held = archive and 0 or c.stored_held - (freed or 0)
  c.held_before = c.held
  if archive then return c, false end
  for limit, per, rolling in gmatch(more[2] or '', '(%d+)/(%a+)(~?)') do
    local w = window_of(state, feature, limit, per, rolling)
    if not w then return false, true end
    c.windows[#c.windows + 1] = w
  end
  return c, false
end

-- The counters of the running period by feature, for what their holds keep: those at hand, and as stored those others
-- that may have some.
local function standings_of(record, counters, freed, has_holds)
  local found = {}
  local flat = has_holds and read('HGETALL', record) or {}
  local old = {}
  for i = 1, #flat, 2 do old[flat[i]] = flat[i + 1] end
  for field, units in pairs(old) do
    if sub(field, 1, 2) == 'h:' then
      local feature = sub(field, 3)
      found[feature] = {
        limit = tonumber(old['l:' .. feature] or -1), mode = old['m:' .. feature] or 'o',
        used = tonumber(old['u:' .. feature] or 0), held = tonumber(units) - (freed[feature] or 0),
        weight = tonumber(old['v:' .. feature] or ''),
      }
    end
  end
  for _, c in pairs(counters) do
    if c and not c.archive then found[c.feature] = c end
  end
  return found
end

-- Holds that ended by now and count for nothing then: their units by feature, their members. Nil: corrupt.
local function expired(key)
  local found = read('ZRANGEBYSCORE', key, '-inf', now)
  if found.err then return nil end
  local freed, members = {}, {}
  for i = 1, #found do
    local _, feature, units, kind = match(found[i], '^([^|]+)|([^|]+)|(%d+)|(%a)$')
    if not units then return nil end
    if kind ~= 'c' then
      freed[feature] = (freed[feature] or 0) + tonumber(units)
      members[#members + 1] = found[i]
    end
  end
  return freed, members
end

-- ── preparing the writes ────────────────────────────────────────────────────────────────────────────────

-- The value of a dimension as it is kept: itself while the month has room for more of them, else `other`.
local function kept_value(dim, sets)
  local found = sets[dim.values]
  if not found then
    local size = read('SCARD', dim.values)
    if type(size) == 'table' then return nil end
    found = {size = size, known = {}, fresh = {}}
    sets[dim.values] = found
  end
  local known = found.known[dim.value]
  if known == nil then
    known = read('SISMEMBER', dim.values, dim.value) == 1
    if not known and found.size < dim.most then
      known, found.size = true, found.size + 1
      found.fresh[#found.fresh + 1] = dim.value
    end
    found.known[dim.value] = known
  end
  return known and dim.value or 'other'
end

local function add(places, key, field, units)
  places[key] = places[key] or {}
  places[key][field] = (places[key][field] or 0) + units
end

-- What history, minutes and dimensions gain: key -> field -> units. Whether one of them is corrupt.
local function gains(rows, head, day0, plain, sets)
  for _, row in ipairs(rows) do
    if row.recorded and row.verb ~= 'd' and row.verb ~= 'r' then
      local bucket = row.bucket
      if bucket == '' then
        local border = ARGV[head + 4]
        bucket = border ~= '' and tonumber(border) == hour_now and ARGV[head + 5] or bucket_now
      end
      local day = KEYS[day0 + row.day - 1]
      add(plain.history, day, bucket, row.recorded)
      if row.overage > 0 then add(plain.history, day, 'x' .. bucket, row.overage) end
      if row.minutes then
        local minute = row.minute ~= '' and row.minute or format('%02d', minute_now % 60)
        add(plain.minutes, row.minutes, minute, row.recorded)
        if row.overage > 0 then add(plain.minutes, row.minutes, 'x' .. minute, row.overage) end
      end
      for _, dim in ipairs(row.dims) do
        local value = kept_value(dim, sets)
        if not value then return true end
        add(plain.dims, dim.units, bucket .. '|' .. value, row.recorded)
      end
    end
  end
  for _, kind in pairs(plain) do
    for key, fields in pairs(kind) do
      for field in pairs(fields) do
        local r = read('HGET', key, field)
        if type(r) == 'table' or r and not match(r, '^%d+$') then return true end
      end
    end
  end
  return false
end

local function write_gains(kind, keep_s)
  for key, fields in pairs(kind) do
    local fresh = false
    for field, units in pairs(fields) do fresh = call('HINCRBY', key, field, units) == units or fresh end
    if fresh then call('EXPIRE', key, keep_s, 'NX') end
  end
end

-- Whether something else that is about to be written has another type, or is no number.
local function others_wrong(org, rows, counters, keys, freed)
  for _, c in pairs(counters) do
    if c and c.overage > 0 and overage_wrong(c.key, c.feature, c, keys.trail, keys.dirty) then return true end
    if c and c.archive and c.recorded > 0 then
      local b = read('HGET', keys.record, 'b:' .. c.feature)
      if type(b) == 'table' or b and not match(b, '^%d+$') then return true end
    end
  end
  for _, row in ipairs(rows) do
    if row.bits > 0 and wrong(read('XLEN', keys.crossings)) then return true end
    if row.box ~= '' and wrong(read('XLEN', keys.events)) then return true end
    if row.hold_key and wrong(read('ZCARD', keys.holds), read('ZCARD', keys.expiring)) then return true end
  end
  for feature, units in pairs(freed) do
    local held = read('HGET', keys.record, 'h:' .. feature)
    if type(held) ~= 'string' or not match(held, '^%d+$') or tonumber(held) < units then return true end
  end
  for _, c in pairs(counters) do
    if c and c.windows[1] and wrong(read('HLEN', keys.state)) then return true end
  end
  return org.rate and wrong(read('HLEN', keys.state))
end

-- ── writing ─────────────────────────────────────────────────────────────────────────────────────────────

local function write_hold(row, org, keys)
  local hold = row.hold
  local member = member_of(row.hold_name, hold.feature, hold.quantity, hold.kind)
  if row.verb == 'r' then
    local ends = now + row.hold_ms
    call('HSET', row.hold_key, 'feature', row.feature, 'quantity', row.recorded, 'asked', row.quantity, 'expires', ends,
      'kind', row.hold_kind, 'status', 'held', 'created', now)
    call('EXPIRE', row.hold_key, ceil(row.hold_ms / 1000) + HOLD_KEEP_S)
    call('ZADD', keys.holds, ends, member)
    call('ZADD', keys.expiring, 'LT', ends, org.name)
    return
  end
  local state = row.verb == 'x' and 'charged' or 'committed'
  if hold.kept then call('HSET', row.hold_key, 'status', state, 'committed', row.recorded, 'at', now) end
  call('ZREM', keys.holds, member)
end

local function write_raw(row, keys, sealed)
  call('XADD', keys.events, 'MINID', '~', max(0, time[1] * 1000 - events_keep_ms), '*', 'at', now, 'org', sealed,
    'box', row.box, 'id', row.group ~= '0' and row.digest or '', 'feature', row.feature, 'q', row.quantity,
    'n', row.recorded, 'x', row.overage, 'used', row.used)
end

local function write_counter(c, org, keys, totals)
  local at = now > c.at and now or c.at
  call('HSET', c.key, 'u:' .. c.feature, c.used, 't:' .. c.feature, at)
  if c.cut then call('HSET', c.key, 'c:' .. c.feature, 1) end
  if c.paid then
    call('HSET', c.key, 'a:' .. c.feature, c.credit, 'f:' .. c.feature, credits.spent_text(c.own, c.pooled))
  end
  if c.archive then call('HINCRBY', keys.record, 'b:' .. c.feature, c.recorded) end
  if c.overage > 0 then
    call('HSET', c.key, 'x:' .. c.feature, c.accrued + c.overage)
    local start, member = org.start_ms, org.name .. '|' .. c.feature
    if c.archive then
      start = match(c.key, '(%d+)$')
      member = member .. '|' .. start
    end
    write_overage(member, c.feature, c, keys.trail, keys.dirty, org.plan, start, totals)
  end
  local total = 'u:' .. org.plan .. ':' .. c.feature
  totals[total] = (totals[total] or 0) + c.recorded
end

-- Ids of what was counted, by shard group; answers to events without one.
local function write_ids(rows, shard0, tiers, tiers_now, minted0)
  local added, answers = {}, {}
  for _, row in ipairs(rows) do
    if row.recorded and row.verb ~= 'd' and row.verb ~= 'r' and not row.further and row.digest ~= '' then
      local list = answers
      if row.group == '0' then
        local text = format('%.0f:%.0f:%.0f', row.code + 16 * row.bits, row.used, row.extra)
        list[#list + 1] = row.digest
        list[#list + 1] = row.burned and format('%s:%.0f', text, row.burned) or text
      else
        list = added[row.group] or {}
        added[row.group] = list
        list[#list + 1] = row.digest
        list[#list + 1] = row.content
      end
    end
  end
  for group, list in pairs(added) do
    call('SADD', KEYS[shard0 + (tonumber(group) - 1) * tiers + tiers_now - 1], unpack(list))
  end
  if #answers > 0 then
    call('HSET', KEYS[minted0], unpack(answers))
    call('EXPIRE', KEYS[minted0], MINTED_KEEP_S, 'NX')
  end
end

-- Units held: what was held or settled here, less what expired.
local function write_held(counters, freed, members, keys)
  local change = {}
  for feature, units in pairs(freed) do change[feature] = -units end
  for _, c in pairs(counters) do
    if c and not c.archive then change[c.feature] = (change[c.feature] or 0) + c.held - c.held_before end
  end
  for feature, units in pairs(change) do
    if units ~= 0 then call('HINCRBY', keys.record, 'h:' .. feature, units) end
  end
  if #members > 0 then call('ZREM', keys.holds, unpack(members)) end
end

-- Everything of one organisation. Reads and decisions first; from `-- writes` on nothing may fail.
local function organisation(keys, totals, clock_ok)
  local claim, head = ARGV[a], a
  local org = {start_ms = tonumber(ARGV[a + 1]), plan = ARGV[a + 2], seen = {}, open = 0}
  local nd, ng, nm = tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7]), tonumber(ARGV[a + 8])
  local ne, nc = tonumber(ARGV[a + 9]), tonumber(ARGV[a + 10])
  local day_paid = ARGV[a + 11]
  local c0 = a + 12
  local e0 = c0 + nc
  local x0 = e0 + 7 * ne
  local next_claim = ARGV[x0]
  local nh, na, no = tonumber(ARGV[x0 + 1]), tonumber(ARGV[x0 + 2]), tonumber(ARGV[x0 + 3])
  keys.record, keys.trail = KEYS[kx], KEYS[kx + 1]
  org.name = sub(keys.record, find(keys.record, ':o:', 1, true) + 3)
  local new0 = kx + 2
  local minted0 = nc > 0 and new0 + 4 or new0
  local day0 = minted0 + nm
  local shard0 = day0 + nd
  local valid_until, tiers_now, tiers_before = match(claim, '^(%d+):(%d)(%d):')
  tiers_now = tonumber(tiers_now)
  local tiers = tiers_now + tonumber(tiers_before)
  local pool0 = shard0 + ng * tiers
  local hold0 = pool0 + 2
  if day_paid ~= '' then
    org.paying = {
      pool = KEYS[pool0], burned = KEYS[pool0 + 1], ledger = KEYS[pool0 + 2], grants = KEYS[pool0 + 3],
      lapsing = KEYS[pool0 + 4], topups = KEYS[pool0 + 5], crossings = keys.crossings,
    }
    hold0 = pool0 + 8
  end
  keys.holds, keys.state = KEYS[hold0 - 2], KEYS[hold0 - 1]
  local archive0 = hold0 + nh
  local other0 = archive0 + na
  kx = other0 + no
  local rows
  rows, a = rows_of(e0, x0 + 4, ne, hold0, archive0, other0)

  -- reads
  if not clock_ok then return answer_all(ne, 7, 6) end
  if nm > 0 and minute ~= minute_now then return answer_all(ne, 7, 7) end
  if minutes_keep_s > 0 and floor(minute / 60) ~= floor(minute_now / 60) then return answer_all(ne, 7, 7) end
  local kept = read('HMGET', keys.record, 'k', 'rate')
  if kept.err then return answer_all(ne, 10, 0) end
  local stored, rate_text = kept[1], kept[2]
  local new
  if not stored then
    if nc == 0 then return answer_all(ne, 7, 1) end
    new = {}
    for i = c0 + 1, c0 + tonumber(ARGV[c0]), 2 do new[ARGV[i]] = ARGV[i + 1] end
    rate_text = new.rate
  elseif stored ~= claim then
    return answer_all(ne, 7, 2)
  end
  if now >= tonumber(valid_until) then return answer_all(ne, 7, 3) end
  if now < org.start_ms then return answer_all(ne, 7, 4) end
  local hits, fault
  if ng > 0 then
    hits, fault = lookup(e0, ne, shard0, ng, tiers, tiers_now)
    if fault == 'full' then return answer_all(ne, 7, 5) end
    if fault then return answer_all(ne, 10, 0) end
  end
  -- An organisation that would get its first claim with holds has none.
  local freed, members = {}, {}
  if next_claim == '' then freed, members = expired(keys.holds) end
  org.rate = rate_of(keys.record, keys.state, rate_text)
  org.open = next_claim == '' and read('ZCARD', keys.holds) or 0
  if not freed or org.rate == false then return answer_all(ne, 10, 0) end
  org.open = org.open - #members
  local counters, holds = {}, {}
  for i, row in ipairs(rows) do
    local corrupt
    local place = (row.archive or '') .. '|' .. row.feature
    if counters[place] == nil then
      if row.archive then
        local open = read('HMGET', row.archive, 'k', 'final')
        if open.err then return answer_all(ne, 10, 0) end
        if not open[1] or open[2] then return answer_all(ne, 7, 8) end
      end
      if new then
        counters[place] = new_counters(c0, e0 + 7 * (i - 1), 1)[row.feature]
        local c = counters[place]
        if c then
          c.key, c.feature, c.windows, c.held, c.held_before, c.credit = keys.record, row.feature, {}, 0, 0, 0
          for limit, per, rolling in gmatch(new['w:' .. row.feature] or '', '(%d+)/(%a+)(~?)') do
            c.windows[#c.windows + 1] = window_of(keys.state, row.feature, limit, per, rolling)
          end
        end
      else
        counters[place], corrupt =
          full_counter(row.archive or keys.record, keys.state, row.feature, row.archive, freed[row.feature])
      end
    end
    row.counter, row.hit = counters[place], hits and hits[i - 1]
    if row.hold_key and not corrupt then
      row.hold = holds[row.hold_key] -- rows that name one hold share it
      if not row.hold then row.hold, corrupt = hold_of(row, keys.holds) end
      holds[row.hold_key] = row.hold
      local hold, c = row.hold, row.counter
      corrupt = corrupt or hold.open and c and hold.feature == row.feature and c.stored_held < hold.quantity
    end
    local broken
    row.replay, broken = replay_of(row, minted0)
    if corrupt or broken then return answer_all(ne, 10, 0) end
  end

  local standings
  org.standings = function()
    standings = standings or standings_of(keys.record, counters, freed, next_claim == '')
    return standings
  end

  -- decisions, in order
  local i = 1
  while i <= ne do
    local to = min(ne, i + max(1, rows[i].unit) - 1)
    decide_unit(rows, i, to, org)
    i = to + 1
  end
  if org.corrupt then return answer_all(ne, 10, 0) end
  local burns = org.pool and next(org.pool.burned)
  if org.counted then
    local plain, sets = {history = {}, minutes = {}, dims = {}}, {}
    if gains(rows, head, day0, plain, sets) or others_wrong(org, rows, counters, keys, freed)
      or not stored and creation_wrong(new0, keys.trail) or burns and credits.wrong(org.pool, org.paying, day_paid) then
      return answer_all(ne, 10, 0)
    end

    -- writes
    write_gains(plain.history, history_keep_s)
    write_gains(plain.minutes, minutes_keep_s)
    write_gains(plain.dims, history_keep_s)
    for key, found in pairs(sets) do
      if #found.fresh > 0 then
        call('SADD', key, unpack(found.fresh))
        call('EXPIRE', key, VALUES_KEEP_S, 'NX')
      end
    end
    write_ids(rows, shard0, tiers, tiers_now, minted0)
    if not stored then
      write_creation(keys.record, new0, keys.trail, c0, e0, org.name, org.plan, tonumber(valid_until), totals)
    end
    for _, c in pairs(counters) do
      if c and c.recorded > 0 then write_counter(c, org, keys, totals) end
      for _, w in ipairs(c and c.windows or {}) do
        if w.added > 0 then write_window(keys.state, w) end
      end
    end
    if burns then credits.write(org.pool, org.paying, org.name, day_paid, ARGV[head + 3], org.start_ms) end
    write_held(counters, freed, members, keys)
    local held = false
    for _, row in ipairs(rows) do
      if row.recorded and row.verb ~= 'd' then
        if row.hold_key then write_hold(row, org, keys) end
        held = held or row.verb == 'r'
        if row.box ~= '' and row.verb ~= 'r' then write_raw(row, keys, ARGV[head + 3]) end
        if row.bits > 0 then
          write_marks(keys.crossings, ARGV[head + 3], org.start_ms, {row.feature, row.bits, row.used, row.counter.limit})
        end
      end
    end
    if held and next_claim ~= '' then call('HSET', keys.record, 'k', next_claim, 'holds', 1) end
    if org.rate and org.rate.moved then call('HSET', keys.state, 'rate', org.rate.tat) end
  end
  for _, row in ipairs(rows) do
    if row.replay and row.code ~= 12 then row.used = row.replay[2] end
    tell(row.code + 16 * row.bits, row.used, row.extra, row.held, row.by, row.until_ms, row.left, row.full_ms,
      row.code == 5 and row.overage or 0, row.burned)
  end
end

while a <= #ARGV do
  local orgs = tonumber(ARGV[a])
  local keys = {crossings = KEYS[kx], dirty = KEYS[kx + 1], events = KEYS[kx + 3], expiring = KEYS[kx + 4]}
  local totals_key = KEYS[kx + 2]
  a, kx = a + 1, kx + 5
  local clock_ok = true
  if offset ~= '' then
    clock_ok = read('GET', KEYS[kx]) == offset
    kx = kx + 1
  end
  local totals = {}
  for _ = 1, orgs do organisation(keys, totals, clock_ok) end
  for field, n in pairs(totals) do call('HINCRBY', totals_key, field, n) end
end
return out
