#!lua
-- track: count usage events of many organisations, each event once, each organisation wholly or not at all.
--
-- KEYS   per partition: crossings, dirty, totals, then clock when ARGV[3] is given
--        per organisation of it: record, trail, then when created: profile, orgs, plans, due,
--        then when it has events without an id: minted now, minted before, then its history days,
--        then per shard group: the shard of each tier of this month (the last one is written), of the month before
-- ARGV   caller's clock ms, the minute (since the epoch) its keys were made for, test clock offset ms or '',
--        seconds to keep history
--        per partition: number of organisations
--        per organisation: claim, period start ms, plan, sealed name, border hour or '', border bucket,
--        number of days, shard groups, minted keys (0 or 2), events, creation values, then those values:
--        the count of the record's values, the record's fields and values, the profile's fields and values
--        per event: shard group (0 = no id), feature, quantity, digest (or minted id), content digest,
--        day, bucket ('' = now)
-- RETURNS now, then per event: code, used, extra; only {now, -1} clocks apart, {now, -2} other day
--   code 1 counted (extra = overage)   2 duplicate     3 conflict        4 refused     5 capped (extra = recorded)
--        6 quantity or total not exact 8 no feature    9 feature off    10 corrupt
--        7 stale: used = 1 no organisation, 2 other claim, 3 claim run out, 4 clock before the period,
--          5 shard full, 6 other test clock, 7 other minute;   plus 16 * bits for the marks 75, 80, 90, 100
local call, read = redis.call, redis.pcall
local floor, sub, find, match, format = math.floor, string.sub, string.find, string.match, string.format
local QUANTITY_MAX, TOTAL_MAX = 1e12, 9007199254740991
local MARKS = {75, 80, 90, 100}
local SKEW_MAX_MS = 60000
local MINTED_KEEP_S = 180
local CROSSINGS_MAX = 100000
local SHARD_MAX, SHARD_MAX_AFTER, SHARD_ASK = 400, 480, 8

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
if math.abs(now - tonumber(ARGV[1])) > SKEW_MAX_MS then return {now, -1} end
local offset = ARGV[3]
if offset ~= '' then now = now + tonumber(offset) end
local minute, minute_now = tonumber(ARGV[2]), floor(now / 60000)
if floor(minute / 1440) ~= floor(minute_now / 1440) then return {now, -2} end
local history_keep_s = tonumber(ARGV[4])
local hour_now = floor(now / 3600000)
local bucket_now = format('%02d', hour_now % 24)

local out, o = {now}, 1
local a, kx = 5, 1 -- next ARGV, next KEYS

local function answer(code, used, extra)
  out[o + 1], out[o + 2], out[o + 3] = code, used, extra
  o = o + 3
end

-- One feature's counter as the record holds it. Also the first read of the record: returns its claim.
local function counter_of(record, feature)
  local r = read('HMGET', record, 'k', 'l:' .. feature, 'm:' .. feature, 'u:' .. feature, 't:' .. feature)
  if r.err then return false, nil, true end
  if not r[2] then return r[1], nil, false end
  local limit, used, at = tonumber(r[2]), tonumber(r[4] or 0), tonumber(r[5] or 0)
  if not (limit and used and at and r[3]) then return r[1], nil, true end
  return r[1], {limit = limit, mode = r[3], used = used, at = at, overage = 0, recorded = 0}, false
end

-- What one event does to one counter: the twin of plans/limits.py. Returns code, recorded, overage, mark bits.
local function decide(counter, quantity)
  local limit, used, recorded = counter.limit, counter.used, quantity
  if limit >= 0 and counter.mode ~= 'o' then
    local room = limit > used and limit - used or 0
    if quantity > room then recorded = counter.mode == 'c' and room or 0 end
  end
  if recorded == 0 then return 4, 0, 0, 0 end
  local after = used + recorded
  if after > TOTAL_MAX then return 6, 0, 0, 0 end
  if limit < 0 then return 1, recorded, 0, 0 end
  local floor_units, bits = limit > used and limit or used, 0
  local before100, after100 = used * 100, after * 100
  for i = 1, 4 do
    local mark = MARKS[i] * limit
    if before100 < mark and mark <= after100 then bits = bits + 2 ^ (i - 1) end
  end
  return recorded == quantity and 1 or 5, recorded, after > floor_units and after - floor_units or 0, bits
end

-- Everything of one organisation. Reads and decisions first; from `-- writes` on nothing may fail but history,
-- which comes first, so that a history key of a wrong type leaves no trace of the organisation.
local function organisation(crossings, dirty, totals, clock_ok)
  local claim, start_ms, plan, sealed = ARGV[a], tonumber(ARGV[a + 1]), ARGV[a + 2], ARGV[a + 3]
  local border_hour, border_bucket = ARGV[a + 4], ARGV[a + 5]
  local nd, ng = tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7])
  local nm, ne, nc = tonumber(ARGV[a + 8]), tonumber(ARGV[a + 9]), tonumber(ARGV[a + 10])
  local c0 = a + 11 -- creation values
  local e0 = c0 + nc -- events
  a = e0 + 7 * ne
  local record, trail = KEYS[kx], KEYS[kx + 1]
  local new0 = kx + 2
  local minted0 = nc > 0 and new0 + 4 or new0
  local day0 = minted0 + nm
  local shard0 = day0 + nd
  local valid_until, tiers_now, tiers_before = match(claim, '^(%d+):(%d)(%d):')
  tiers_now, tiers_before = tonumber(tiers_now), tonumber(tiers_before)
  local tiers = tiers_now + tiers_before
  kx = shard0 + ng * tiers

  local function all(code, used)
    for _ = 1, ne do answer(code, used, 0) end
  end

  -- reads
  if not clock_ok then return all(7, 6) end
  local counters = {}
  local first = ARGV[e0 + 1]
  local stored, counter, corrupt = counter_of(record, first)
  if corrupt then return all(10, 0) end
  if not stored then
    if nc == 0 then return all(7, 1) end
    local new = {}
    for i = c0 + 1, c0 + tonumber(ARGV[c0]), 2 do new[ARGV[i]] = ARGV[i + 1] end
    for i = 0, ne - 1 do
      local feature = ARGV[e0 + 7 * i + 1]
      local limit = new['l:' .. feature]
      counters[feature] = limit
        and {limit = tonumber(limit), mode = new['m:' .. feature], used = 0, at = 0, overage = 0, recorded = 0}
    end
  elseif stored ~= claim then
    return all(7, 2)
  else
    counters[first] = counter or false
  end
  if now >= tonumber(valid_until) then return all(7, 3) end
  if now < start_ms then return all(7, 4) end

  -- dedupe marks: which digests are there, by shard group, and is the written shard full
  local hits = {} -- event -> the shard that holds its digest
  if ng > 0 then
    local members, asks = {}, {}
    for i = 0, ne - 1 do
      local e = e0 + 7 * i
      local group = tonumber(ARGV[e])
      if group > 0 then
        local list = members[group]
        if not list then list = {}; members[group] = list end
        list[#list + 1] = i
        if sub(ARGV[e + 3], -1) == '0' then asks[group] = true end
      end
    end
    for group, list in pairs(members) do
      local base = shard0 + (group - 1) * tiers
      local coming = 2 * #list
      if asks[group] or #list >= SHARD_ASK then
        local size = read('SCARD', KEYS[base + tiers_now - 1])
        if type(size) == 'table' then return all(10, 0) end
        if size > SHARD_MAX or size + coming > SHARD_MAX_AFTER then return all(7, 5) end
      end
      local digests = {}
      for j = 1, #list do digests[j] = ARGV[e0 + 7 * list[j] + 3] end
      for s = base, base + tiers - 1 do
        local found = read('SMISMEMBER', KEYS[s], unpack(digests))
        if found.err then return all(10, 0) end
        for j = 1, #list do
          if found[j] == 1 then hits[list[j]] = KEYS[s] end
        end
      end
    end
  end

  -- decisions, in order of arrival
  local start = o
  local added, marks, seen, answers = {}, {}, {}, {} -- per group digests; crossings; ids of this call; minted
  local units, extra_units = {}, {} -- history: 'day:bucket' -> units, overage
  local counted = false
  local bucket_here = border_hour ~= '' and tonumber(border_hour) == hour_now and border_bucket or bucket_now
  for i = 0, ne - 1 do
    local e = e0 + 7 * i
    local group, feature, quantity = tonumber(ARGV[e]), ARGV[e + 1], tonumber(ARGV[e + 2])
    local digest, content = ARGV[e + 3], ARGV[e + 4]
    counter = counters[feature]
    if counter == nil then
      local _
      _, counter, corrupt = counter_of(record, feature)
      if corrupt then
        o = start
        return all(10, 0)
      end
      counters[feature] = counter or false
    end
    local replay
    if group == 0 then
      if minute ~= minute_now then
        o = start
        return all(7, 7)
      end
      replay = seen[digest] or read('HGET', KEYS[minted0], digest) or read('HGET', KEYS[minted0 + 1], digest)
      if type(replay) == 'table' then
        o = start
        return all(10, 0)
      end
    end
    if not quantity or quantity < 1 or quantity > QUANTITY_MAX or quantity % 1 ~= 0 then
      answer(6, 0, 0)
    elseif not counter then
      answer(8, 0, 0)
    elseif replay then
      local code, used, extra = match(replay, '^(%d+):(%d+):(%d+)$')
      answer(tonumber(code), tonumber(used), tonumber(extra))
    elseif seen[digest] then
      answer(seen[digest] == content and 2 or 3, counter.used, 0)
    elseif hits[i] then
      local same = call('SISMEMBER', hits[i], content) == 1
      answer(same and 2 or 3, counter.used, 0)
    elseif sub(counter.mode, 1, 1) == 'x' then
      answer(9, counter.used, 0)
    else
      local code, recorded, overage, bits = decide(counter, quantity)
      if recorded > 0 then
        counted = true
        local before = counter.used
        counter.used, counter.recorded = before + recorded, counter.recorded + recorded
        counter.overage = counter.overage + overage
        if now > counter.at then counter.at = now end
        local bucket = ARGV[e + 6]
        local place = ARGV[e + 5] .. ':' .. (bucket == '' and bucket_here or bucket)
        units[place] = (units[place] or 0) + recorded
        if overage > 0 then extra_units[place] = (extra_units[place] or 0) + overage end
        if bits > 0 then marks[#marks + 1] = {feature, bits, counter.used, counter.limit} end
        local extra = code == 5 and recorded or overage
        if group > 0 then
          seen[digest] = content
          local list = added[group]
          if not list then list = {}; added[group] = list end
          list[#list + 1] = digest
          list[#list + 1] = content
        else
          local text = format('%.0f:%.0f:%.0f', code + 16 * bits, counter.used, extra)
          seen[digest] = text
          answers[#answers + 1] = digest
          answers[#answers + 1] = text
        end
        answer(code + 16 * bits, counter.used, extra)
      else
        answer(code, counter.used, 0)
      end
    end
  end
  if not counted then return end

  -- overage so far, read while nothing is written
  for feature, c in pairs(counters) do
    if c and c.overage > 0 then
      local x = call('HMGET', record, 'x:' .. feature, 's:' .. feature)
      c.accrued, c.sealed = tonumber(x[1] or 0), tonumber(x[2] or 0)
      if not (c.accrued and c.sealed) then
        o = start
        return all(10, 0)
      end
    end
  end

  -- writes: history first
  for place, n in pairs(units) do
    local colon = find(place, ':', 1, true)
    local key, bucket = KEYS[day0 + tonumber(sub(place, 1, colon - 1)) - 1], sub(place, colon + 1)
    if call('HINCRBY', key, bucket, n) == n then call('EXPIRE', key, history_keep_s, 'NX') end
    if extra_units[place] then call('HINCRBY', key, 'x' .. bucket, extra_units[place]) end
  end
  for group, list in pairs(added) do
    call('SADD', KEYS[shard0 + (group - 1) * tiers + tiers_now - 1], unpack(list))
  end
  if #answers > 0 then
    call('HSET', KEYS[minted0], unpack(answers))
    call('EXPIRE', KEYS[minted0], MINTED_KEEP_S, 'NX')
  end
  local org = sub(record, find(record, ':o:', 1, true) + 3)
  if not stored then
    local n = tonumber(ARGV[c0])
    call('HSET', record, unpack(ARGV, c0 + 1, c0 + n))
    call('HSET', KEYS[new0], unpack(ARGV, c0 + n + 1, e0 - 1))
    call('ZADD', KEYS[new0 + 1], 0, org)
    call('HINCRBY', KEYS[new0 + 2], plan, 1)
    call('ZADD', KEYS[new0 + 3], valid_until, org)
    call('XADD', trail, '*', 'type', 'org_created', 'plan', plan, 'at', now)
    totals['e:org_created'] = (totals['e:org_created'] or 0) + 1
  end
  local fields, f = {}, 0
  for feature, c in pairs(counters) do
    if c and c.recorded > 0 then
      fields[f + 1], fields[f + 2], fields[f + 3], fields[f + 4] = 'u:' .. feature, c.used, 't:' .. feature, c.at
      f = f + 4
      if c.overage > 0 then
        fields[f + 1], fields[f + 2] = 'x:' .. feature, c.accrued + c.overage
        f = f + 2
      end
      local total = 'u:' .. plan .. ':' .. feature
      totals[total] = (totals[total] or 0) + c.recorded
    end
  end
  call('HSET', record, unpack(fields))
  for feature, c in pairs(counters) do
    if c and c.overage > 0 then
      if c.accrued == c.sealed then call('ZADD', dirty, 'NX', now, org .. '|' .. feature) end
      if c.accrued == 0 then
        call('XADD', trail, '*', 'type', 'overage_started', 'plan', plan, 'feature', feature,
          'used', c.used, 'limit', c.limit, 'period', start_ms, 'at', now)
        totals['e:overage_started'] = (totals['e:overage_started'] or 0) + 1
      end
    end
  end
  for i = 1, #marks do
    local m = marks[i]
    for b = 1, 4 do
      if floor(m[2] / 2 ^ (b - 1)) % 2 == 1 then
        call('XADD', crossings, 'MAXLEN', '~', CROSSINGS_MAX, '*', 'org', sealed, 'feature', m[1],
          'mark', MARKS[b], 'used', m[3], 'limit', m[4], 'period', start_ms, 'at', now)
      end
    end
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
