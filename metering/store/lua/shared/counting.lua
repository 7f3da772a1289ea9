-- What track and admit share: the clock, the answers, counters, ids, and the writes of one organisation.
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

-- One feature's counter as the record holds it: the claim beside it, then the counter, then whether it is corrupt.
local function counter_of(record, feature)
  local r = read('HMGET', record, 'k', 'l:' .. feature, 'm:' .. feature, 'u:' .. feature, 't:' .. feature)
  if r.err then return false, nil, true end
  if not r[2] then return r[1], nil, false end
  local limit, used, at = tonumber(r[2]), tonumber(r[4] or 0), tonumber(r[5] or 0)
  if not (limit and used and at and r[3]) then return r[1], nil, true end
  return r[1], {limit = limit, mode = r[3], used = used, at = at, overage = 0, recorded = 0}, false
end

-- The counters of an organisation that is about to be created, from its creation values (the record's come first).
local function new_counters(c0, e0, events)
  local new, counters = {}, {}
  for i = c0 + 1, c0 + tonumber(ARGV[c0]), 2 do new[ARGV[i]] = ARGV[i + 1] end
  for e = e0, e0 + 7 * (events - 1), 7 do
    local feature = ARGV[e + 1]
    local limit = new['l:' .. feature]
    counters[feature] = limit
        and {limit = tonumber(limit), mode = new['m:' .. feature], used = 0, at = 0, overage = 0, recorded = 0}
      or false
  end
  return counters
end

-- What `recorded` units (more than none) of an event do to a counter. Returns code, overage, mark bits; code 6, with
-- nothing more, where the total would not be exact.
local function effect(counter, recorded, quantity)
  local limit, used = counter.limit, counter.used
  local after = used + recorded
  if after > TOTAL_MAX then return 6, 0, 0 end
  local code = recorded == quantity and 1 or 5
  if limit < 0 or after * 100 < 75 * limit then return code, 0, 0 end
  local above, bits = limit > used and limit or used, 0
  local before100, after100 = used * 100, after * 100
  for i = 1, 4 do
    local mark = MARKS[i] * limit
    if before100 < mark and mark <= after100 then bits = bits + 2 ^ (i - 1) end
  end
  return code, after > above and after - above or 0, bits
end

-- Which events' digests are stored: a table event -> the shard that holds it, or nil when none is.
-- Second: 'full' or 'corrupt' when a shard is. Shards stay compact, so one in ten is asked for its size.
local function lookup(e0, events, shard0, groups, tiers, tiers_now)
  if events == 1 then
    local digest, hits = ARGV[e0 + 3], nil
    if sub(digest, -1) == '0' then
      local size = read('SCARD', KEYS[shard0 + tiers_now - 1])
      if type(size) == 'table' then return nil, 'corrupt' end
      if size > SHARD_MAX then return nil, 'full' end
    end
    for s = shard0, shard0 + tiers - 1 do
      local found = read('SISMEMBER', KEYS[s], digest)
      if found == 1 then hits = {[0] = KEYS[s]} elseif found ~= 0 then return nil, 'corrupt' end
    end
    return hits
  end
  local members, asks, hits = {}, {}, nil
  for i = 0, events - 1 do
    local e = e0 + 7 * i
    local group = tonumber(ARGV[e])
    if group > 0 then
      local list = members[group]
      if not list then list = {}; members[group] = list end
      list[#list + 1] = i
      if sub(ARGV[e + 3], -1) == '0' then asks[group] = true end
    end
  end
  for group = 1, groups do
    local list = members[group]
    local base = shard0 + (group - 1) * tiers
    if asks[group] or #list >= SHARD_ASK then
      local size = read('SCARD', KEYS[base + tiers_now - 1])
      if type(size) == 'table' then return nil, 'corrupt' end
      if size > SHARD_MAX or size + 2 * #list > SHARD_MAX_AFTER then return nil, 'full' end
    end
    local digests = {}
    for j = 1, #list do digests[j] = ARGV[e0 + 7 * list[j] + 3] end
    for s = base, base + tiers - 1 do
      local found = read('SMISMEMBER', KEYS[s], unpack(digests))
      if found.err then return nil, 'corrupt' end
      for j = 1, #list do
        if found[j] == 1 then
          hits = hits or {}
          hits[list[j]] = KEYS[s]
        end
      end
    end
  end
  return hits
end

-- Whether one of these replies is an error: a key that is about to be written has another type.
local function wrong(...)
  for _, reply in ipairs({...}) do
    if type(reply) == 'table' then return true end
  end
  return false
end

-- Whether a bucket of history, or its overage, is no number.
local function bucket_wrong(key, bucket)
  local r = read('HMGET', key, bucket, 'x' .. bucket)
  return r.err or r[1] and not match(r[1], '^%d+$') or r[2] and not match(r[2], '^%d+$')
end

-- The same for all of a call. The write that comes first needs no look: where it fails, nothing is written yet.
local function history_wrong(units, extra_units, day0)
  local first = next(units)
  for place in pairs(units) do
    local colon = find(place, ':', 1, true)
    local key = KEYS[day0 + tonumber(sub(place, 1, colon - 1)) - 1]
    if (place ~= first or extra_units[place] > 0) and bucket_wrong(key, sub(place, colon + 1)) then return true end
  end
  return false
end

local function creation_wrong(new0, trail)
  return wrong(read('HLEN', KEYS[new0]), read('ZCARD', KEYS[new0 + 1]), read('HLEN', KEYS[new0 + 2]),
    read('ZCARD', KEYS[new0 + 3]), read('XLEN', trail))
end

-- Reads the overage so far into a counter that has more now; whether what it writes to is wrong.
local function overage_wrong(key, feature, c, trail, dirty)
  local x = call('HMGET', key, 'x:' .. feature, 's:' .. feature)
  c.accrued, c.sealed = tonumber(x[1] or 0), tonumber(x[2] or 0)
  if not (c.accrued and c.sealed) then return true end
  return c.accrued == c.sealed and wrong(read('ZCARD', dirty)) or c.accrued == 0 and wrong(read('XLEN', trail))
end

local function write_history(key, bucket, units, overage)
  if call('HINCRBY', key, bucket, units) == units then call('EXPIRE', key, history_keep_s, 'NX') end
  if overage > 0 then call('HINCRBY', key, 'x' .. bucket, overage) end
end

local function write_creation(record, new0, trail, c0, e0, org, plan, valid_until, totals)
  local n = tonumber(ARGV[c0])
  call('HSET', record, unpack(ARGV, c0 + 1, c0 + n))
  call('HSET', KEYS[new0], unpack(ARGV, c0 + n + 1, e0 - 1))
  call('ZADD', KEYS[new0 + 1], 0, org)
  call('HINCRBY', KEYS[new0 + 2], plan, 1)
  call('ZADD', KEYS[new0 + 3], valid_until, org)
  call('XADD', trail, '*', 'type', 'org_created', 'plan', plan, 'at', now)
  totals['e:org_created'] = (totals['e:org_created'] or 0) + 1
end

-- `member` names the counter in the list of those with overage that is not sealed yet.
local function write_overage(member, feature, c, trail, dirty, plan, start_ms, totals)
  if c.accrued == c.sealed then call('ZADD', dirty, 'NX', now, member) end
  if c.accrued == 0 then
    call('XADD', trail, '*', 'type', 'overage_started', 'plan', plan, 'feature', feature,
      'used', c.used, 'limit', c.limit, 'period', start_ms, 'at', now)
    totals['e:overage_started'] = (totals['e:overage_started'] or 0) + 1
  end
end

local function write_marks(crossings, sealed, start_ms, mark)
  for b = 1, 4 do
    if floor(mark[2] / 2 ^ (b - 1)) % 2 == 1 then
      call('XADD', crossings, 'MAXLEN', '~', CROSSINGS_MAX, '*', 'org', sealed, 'feature', mark[1],
        'mark', MARKS[b], 'used', mark[3], 'limit', mark[4], 'period', start_ms, 'at', now)
    end
  end
end
