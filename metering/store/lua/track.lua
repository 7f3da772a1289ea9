#!lua
-- track: count usage events of many organisations, each event once, each organisation wholly or not at all.
--
-- KEYS   per partition: crossings, dirty, totals, then clock when ARGV[3] is given
--        per organisation of it: record, trail, then when created: profile, orgs, plans, due,
--        then when it has events without an id: minted now, minted before, then its history days,
--        then per shard group: the shard of each tier of this month (the last one is written), of the month before,
--        then where it has credits: its pool, what was burned, their ledger, grants, lapsing, topups
-- ARGV   caller's clock ms, the minute (since the epoch) its keys were made for, test clock offset ms or '',
--        seconds to keep history
--        per partition: number of organisations
--        per organisation: claim, period start ms, plan, sealed name, border hour or '', border bucket,
--        number of days, shard groups, minted keys (0 or 2), events, creation values, the UTC day where it has credits
--        or '', then those values: the count of the record's values, the record's fields and values, the profile's
--        fields and values
--        per event: shard group (0 = no id), feature, quantity, digest (or minted id), content digest,
--        day, bucket ('' = now)
-- RETURNS now, then per event: code, used, extra, and where it has credits: those burned, or of a refusal those that
--        could be used (-1 they do not pay for the feature); only {now, -1} clocks apart, {now, -2} other day
--   code 1 counted (extra = overage)   2 duplicate     3 conflict        4 refused     5 capped (extra = recorded)
--        6 quantity or total not exact 8 no feature    9 feature off    10 corrupt
--        7 stale: used = 1 no organisation, 2 other claim, 3 claim run out, 4 clock before the period,
--          5 shard full, 6 other test clock, 7 other minute;   plus 16 * bits for the marks 75, 80, 90, 100
--@ counting

-- Made where an organisation burns credits: most calls never need it.
local function credits_made()
--@ credits
  return {
    pool_of = pool_of, cover_of = cover_of, has_own = has_own, burn = burn, put = put, wrong = pool_wrong,
    write = write_burns, spent_of = spent_of, spent_text = spent_text,
  }
end
local credits

-- The numbers of an answer: the last only where the organisation has credits.
local width

local function answer(code, used, extra, burned)
  out[o + 1], out[o + 2], out[o + 3] = code, used, extra
  if width == 4 then out[o + 4] = burned or 0 end
  o = o + width
end

local function answer_all(events, code, used)
  for _ = 1, events do answer(code, used, 0) end
end

-- What one event does to one counter, of which credits pay for `cover` units: the twin of plans/limits.py. Returns code,
-- recorded, units above the limit, mark bits.
local function decide(counter, quantity, cover)
  local limit, used, recorded = counter.limit, counter.used, quantity
  if limit >= 0 and counter.mode ~= 'o' then
    local room = (limit > used and limit - used or 0) + cover
    if quantity > room then recorded = counter.mode == 'c' and room or 0 end
  end
  if recorded == 0 then return 4, 0, 0, 0 end
  local code, above, bits = effect(counter, recorded, quantity)
  return code, code == 6 and 0 or recorded, above, bits
end

-- What credits pay for, read at the first event above a limit: false where the pool or the counter's part is corrupt.
local function pool_of(paying, record, feature, counter)
  credits = credits or credits_made()
  if not paying.pool then paying.pool = credits.pool_of(paying.keys.pool) end
  if counter.credit == nil then
    local r = call('HMGET', record, 'v:' .. feature, 'a:' .. feature, 'f:' .. feature)
    counter.weight, counter.credit = r[1] and tonumber(r[1]) or nil, tonumber(r[2] or 0)
    if r[1] and not counter.weight or not counter.credit then return false end
    counter.own, counter.pooled = credits.spent_of(r[3], counter.credit, counter.weight)
    if not counter.own then return false end
  end
  return paying.pool or false
end

local function any_overage_wrong(record, counters, trail, dirty)
  for feature, c in pairs(counters) do
    if c and c.overage > 0 and overage_wrong(record, feature, c, trail, dirty) then return true end
  end
  return false
end

-- Everything of one organisation. Reads and decisions first; from `-- writes` on nothing may fail but the first
-- write, to history, so that a key of a wrong type leaves no trace of the organisation.
local function organisation(crossings, dirty, totals, clock_ok)
  local claim, start_ms, plan = ARGV[a], tonumber(ARGV[a + 1]), ARGV[a + 2]
  local nd, ng, nm = tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7]), tonumber(ARGV[a + 8])
  local ne, nc = tonumber(ARGV[a + 9]), tonumber(ARGV[a + 10])
  local head = a
  local day_paid = ARGV[a + 11]
  local c0 = a + 12 -- creation values
  local e0 = c0 + nc -- events
  a = e0 + 7 * ne
  local record, trail = KEYS[kx], KEYS[kx + 1]
  local new0 = kx + 2
  local minted0 = nc > 0 and new0 + 4 or new0
  local day0 = minted0 + nm
  local shard0 = day0 + nd
  local valid_until, tiers_now, tiers_before = match(claim, '^(%d+):(%d)(%d):')
  tiers_now = tonumber(tiers_now)
  local tiers = tiers_now + tonumber(tiers_before)
  kx = shard0 + ng * tiers
  local paying
  width = 3
  if day_paid ~= '' then
    paying = {keys = {
      pool = KEYS[kx], burned = KEYS[kx + 1], ledger = KEYS[kx + 2], grants = KEYS[kx + 3], lapsing = KEYS[kx + 4],
      topups = KEYS[kx + 5], crossings = crossings,
    }}
    kx, width = kx + 6, 4
  end

  -- reads
  if not clock_ok then return answer_all(ne, 7, 6) end
  if nm > 0 and minute ~= minute_now then return answer_all(ne, 7, 7) end
  local first = ARGV[e0 + 1]
  local stored, counter, corrupt = counter_of(record, first)
  if corrupt then return answer_all(ne, 10, 0) end
  local counters
  if not stored then
    if nc == 0 then return answer_all(ne, 7, 1) end
    counters = new_counters(c0, e0, ne)
  elseif stored ~= claim then
    return answer_all(ne, 7, 2)
  else
    counters = {[first] = counter or false}
  end
  if now >= tonumber(valid_until) then return answer_all(ne, 7, 3) end
  if now < start_ms then return answer_all(ne, 7, 4) end
  local hits
  if ng > 0 then
    local fault
    hits, fault = lookup(e0, ne, shard0, ng, tiers, tiers_now)
    if fault == 'full' then return answer_all(ne, 7, 5) end
    if fault then return answer_all(ne, 10, 0) end
  end

  -- decisions, in order of arrival
  local start, counted, overages = o, false, false
  local added, seen, marks, answers, units, extra_units
  local day, bucket, single_units, single_overage, pool
  for e = e0, a - 7, 7 do
    local group, feature, quantity = ARGV[e], ARGV[e + 1], tonumber(ARGV[e + 2])
    local digest, content = ARGV[e + 3], ARGV[e + 4]
    counter = counters[feature]
    if counter == nil then
      local _
      _, counter, corrupt = counter_of(record, feature)
      counters[feature] = counter or false
    end
    local replay = seen and seen[digest]
    if group == '0' and not replay then
      replay = read('HGET', KEYS[minted0], digest) or read('HGET', KEYS[minted0 + 1], digest)
      corrupt = corrupt or type(replay) == 'table'
    end
    if corrupt then
      o = start
      return answer_all(ne, 10, 0)
    end
    local hit = hits and hits[(e - e0) / 7]
    if not quantity or quantity < 1 or quantity > QUANTITY_MAX or quantity % 1 ~= 0 then
      answer(6, 0, 0)
    elseif not counter then
      answer(8, 0, 0)
    elseif replay and group == '0' then
      local code, used, extra, burned = match(replay, '^(%d+):(%d+):(%d+):?(%d*)$')
      answer(tonumber(code), tonumber(used), tonumber(extra), tonumber(burned))
    elseif replay or hit then
      local same
      if replay then same = replay == content else same = call('SISMEMBER', hit, content) == 1 end
      answer(same and 2 or 3, counter.used, 0)
    elseif sub(counter.mode, 1, 1) == 'x' then
      answer(9, counter.used, 0)
    else
      local own, pooled, usable, burned = 0, 0, 0, 0
      if paying and counter.limit >= 0 and counter.used + quantity > counter.limit then
        pool = pool_of(paying, record, feature, counter)
        if not pool then
          o = start
          return answer_all(ne, 10, 0)
        end
        own, pooled, usable = credits.cover_of(pool, feature, counter.weight, 0)
      end
      local code, recorded, overage, bits = decide(counter, quantity, own + pooled)
      if pool and overage > 0 and own + pooled > 0 then
        local credit = overage < own + pooled and overage or own + pooled
        local by_own
        burned, by_own = credits.burn(pool, feature, counter.weight, credit, pooled, credits.put)
        counter.credit, overage = counter.credit + credit, overage - credit
        counter.own, counter.pooled = counter.own + by_own, counter.pooled + burned - by_own
      elseif pool and code == 4 then
        local pays = counter.weight or credits.has_own(pool, feature)
        burned = pays and own + (counter.weight and usable or 0) or -1
      elseif paying and code == 4 then
        burned = -1
      end
      local extra = code == 5 and recorded or overage
      if recorded > 0 then
        counted = true
        counter.used, counter.recorded = counter.used + recorded, counter.recorded + recorded
        if code == 5 then counter.cut = true end
        if overage > 0 then counter.overage, overages = counter.overage + overage, true end
        day, bucket = ARGV[e + 5], ARGV[e + 6]
        if bucket == '' then
          local border = ARGV[head + 4]
          bucket = border ~= '' and tonumber(border) == hour_now and ARGV[head + 5] or bucket_now
        end
        if bits > 0 then
          marks = marks or {}
          marks[#marks + 1] = {feature, bits, counter.used, counter.limit}
        end
        if ne == 1 then
          single_units, single_overage = recorded, overage
        else
          units, extra_units, seen, added = units or {}, extra_units or {}, seen or {}, added or {}
          local place = day .. ':' .. bucket
          units[place] = (units[place] or 0) + recorded
          extra_units[place] = (extra_units[place] or 0) + overage
        end
        if group == '0' then
          local text = format('%.0f:%.0f:%.0f', code + 16 * bits, counter.used, extra)
          if burned > 0 then text = format('%s:%.0f', text, burned) end
          answers = answers or {}
          answers[#answers + 1] = digest
          answers[#answers + 1] = text
          if seen then seen[digest] = text end
        elseif ne > 1 then
          seen[digest] = content
          local list = added[group]
          if not list then list = {}; added[group] = list end
          list[#list + 1] = digest
          list[#list + 1] = content
        end
      end
      answer(code + 16 * bits, counter.used, recorded > 0 and extra or 0, burned)
    end
  end
  if not counted then return end
  if overages and any_overage_wrong(record, counters, trail, dirty) or marks and wrong(read('XLEN', crossings))
    or not stored and creation_wrong(new0, trail) or units and history_wrong(units, extra_units, day0)
    or ne == 1 and single_overage > 0 and bucket_wrong(KEYS[day0 + tonumber(day) - 1], bucket)
    or pool and credits.wrong(pool, paying.keys, day_paid) then
    o = start
    return answer_all(ne, 10, 0)
  end

  -- writes: history first
  if ne == 1 then
    write_history(KEYS[day0 + tonumber(day) - 1], bucket, single_units, single_overage)
    if ng > 0 then call('SADD', KEYS[shard0 + tiers_now - 1], ARGV[e0 + 3], ARGV[e0 + 4]) end
  else
    for place, n in pairs(units) do
      local colon = find(place, ':', 1, true)
      write_history(KEYS[day0 + tonumber(sub(place, 1, colon - 1)) - 1], sub(place, colon + 1), n, extra_units[place])
    end
    for group, list in pairs(added) do
      call('SADD', KEYS[shard0 + (tonumber(group) - 1) * tiers + tiers_now - 1], unpack(list))
    end
  end
  if answers then
    call('HSET', KEYS[minted0], unpack(answers))
    call('EXPIRE', KEYS[minted0], MINTED_KEEP_S, 'NX')
  end
  if not stored then
    local org = sub(record, find(record, ':o:', 1, true) + 3)
    write_creation(record, new0, trail, c0, e0, org, plan, valid_until, totals)
  end
  for feature, c in pairs(counters) do
    if c and c.recorded > 0 then
      local at = now > c.at and now or c.at
      if c.overage > 0 then
        call('HSET', record, 'u:' .. feature, c.used, 't:' .. feature, at, 'x:' .. feature, c.accrued + c.overage)
        local org = sub(record, find(record, ':o:', 1, true) + 3)
        write_overage(org .. '|' .. feature, feature, c, trail, dirty, plan, start_ms, totals)
      else
        call('HSET', record, 'u:' .. feature, c.used, 't:' .. feature, at)
      end
      if c.cut then call('HSET', record, 'c:' .. feature, 1) end
      if c.credit and c.credit > 0 then
        call('HSET', record, 'a:' .. feature, c.credit, 'f:' .. feature, credits.spent_text(c.own, c.pooled))
      end
      local total = 'u:' .. plan .. ':' .. feature
      totals[total] = (totals[total] or 0) + c.recorded
    end
  end
  if pool and next(pool.burned) then
    local org = sub(record, find(record, ':o:', 1, true) + 3)
    credits.write(pool, paying.keys, org, day_paid, ARGV[head + 3], start_ms)
  end
  if marks then
    for i = 1, #marks do write_marks(crossings, ARGV[head + 3], start_ms, marks[i]) end
  end
end

while a <= #ARGV do
  local orgs = tonumber(ARGV[a])
  local crossings, dirty, totals_key = KEYS[kx], KEYS[kx + 1], KEYS[kx + 2]
  a, kx = a + 1, kx + 3
  local clock_ok = true
  if offset ~= '' then
    clock_ok = read('GET', KEYS[kx]) == offset
    kx = kx + 1
  end
  local totals = {}
  for _ = 1, orgs do organisation(crossings, dirty, totals, clock_ok) end
  for field, n in pairs(totals) do call('HINCRBY', totals_key, field, n) end
end
return out
