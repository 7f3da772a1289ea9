#!lua
-- roll: move an organisation to the present: close its period, or only renew its claim (month, tiers, catalogue).
--
-- KEYS   record, archive of the period that may close, trail, due, dirty, totals, spent, open holds, queue,
--        unbilled, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', expected claim, new claim, period start ms, period end ms,
--        two counts: the record's fields and values, months of ids that nobody looks up any more; '1' when the period
--        may close before its end; what was agreed and is over, as JSON, or ''; then what was counted, then record
--        fields to drop
-- RETURNS {1, claim} rolled; {0, claim} the claim is another one ('' no organisation), or something was counted after the
--        instant at which the period was to close early; {-1, now} a clock or period that does not fit: nothing written
--@ clock

local match, sub = string.match, string.sub
local record, archive, trail, due, dirty, totals = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local claim, start_ms, end_ms = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local n, spent_count, early, ended = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1', ARGV[10]
local unbilled = KEYS[10]
local AHEAD_MAX_MS, HOUR_MS = 300000, 3600000
-- What a closed period takes with it.
local OF_A_PERIOD = {
  ['u:'] = true, ['x:'] = true, ['s:'] = true, ['y:'] = true, ['z:'] = true, ['d:'] = true, ['q:'] = true, ['c:'] = true,
  ['f:'] = true, ['a:'] = true, iv = true,
}

local flat = call('HGETALL', record)
local old = {}
for i = 1, #flat, 2 do old[flat[i]] = flat[i + 1] end
if old.k ~= ARGV[3] then return {0, old.k or ''} end
local valid_until = tonumber(match(claim, '^%d+'))
local closes = tonumber(old.ps) ~= start_ms
if now >= valid_until or now >= end_ms then return {-1, now} end
local until_ms = old.pe
if closes then
  local from_ms = tonumber(old.pe)
  if early and start_ms < from_ms then from_ms, until_ms = tonumber(old.ps) + 1, ARGV[5] end
  if start_ms < from_ms or now < start_ms then return {-1, now} end
end

local org = sub(record, string.find(record, ':o:', 1, true) + 3)
local closed, drop, unsealed, kept = {}, {}, {}, {}
if closes then
  if old.pb then drop[1], drop[2] = 'pb', 'pz' end
  -- Without open holds plain counters decide again.
  if old.holds and call('ZCARD', KEYS[8]) == 0 then drop[#drop + 1] = 'holds' end
  for field, value in pairs(old) do
    local kind, feature = sub(field, 1, 2), sub(field, 3)
    if kind ~= 'p:' then
      kept[#kept + 1] = field
      kept[#kept + 1] = field == 'pe' and until_ms or value
    end
    -- An event may be stamped a little ahead, and history is kept by hours: near its end the next hour may have begun.
    if kind == 't:' and until_ms ~= old.pe then
      local last_ms = math.max(tonumber(value), floor((tonumber(value) + AHEAD_MAX_MS) / HOUR_MS) * HOUR_MS)
      if last_ms >= start_ms then return {0, old.k} end
    end
    if kind == 'u:' then closed[#closed + 1] = feature end
    if kind == 'x:' and tonumber(value) > tonumber(old['s:' .. feature] or 0) then
      unsealed[#unsealed + 1] = feature
    end
    if OF_A_PERIOD[kind] then drop[#drop + 1] = field end
  end
end

-- A key of another type ends the script here, while nothing is written.
call('HLEN', archive)
call('XLEN', trail)
call('ZCARD', due)
call('ZCARD', dirty)
call('HLEN', totals)
call('ZCARD', KEYS[7])
call('ZCARD', unbilled)

-- Events that were accepted in this period may still wait to be counted in it.
local waiting = redis.pcall('XLEN', KEYS[9])
local archives = #closed > 0 or closes and type(waiting) == 'number' and waiting > 0

if archives then call('HSET', archive, 'closed', now, unpack(kept)) end
if #closed > 0 then
  -- Units of all closed periods may pass what a Lua number holds exactly: the store adds them.
  for i = 1, #closed do call('HINCRBY', record, 'b:' .. closed[i], old['u:' .. closed[i]]) end
  call('XADD', trail, '*', 'type', 'period_closed', 'plan', old.plan, 'period', old.ps, 'until', until_ms, 'at', now)
  call('HINCRBY', totals, 'e:period_closed', 1)
end
if ended ~= '' then
  call('XADD', trail, '*', 'type', 'overrides_ended', 'plan', old.plan, 'overrides', ended, 'at', now)
  call('HINCRBY', totals, 'e:overrides_ended', 1)
end
if #drop > 0 then call('HDEL', record, unpack(drop)) end
-- Where late events of the period that just closed may still go.
if archives then call('HSET', record, 'pb', old.ps, 'pz', until_ms) end
for i = 1, #unsealed do
  call('ZREM', dirty, org .. '|' .. unsealed[i])
  call('ZREM', unbilled, org .. '|' .. unsealed[i])
  call('ZADD', dirty, 'NX', now, org .. '|' .. unsealed[i] .. '|' .. old.ps)
end
for i = 11 + n, 10 + n + spent_count do call('ZADD', KEYS[7], now, ARGV[i]) end
local drops = 11 + n + spent_count
if #ARGV >= drops then call('HDEL', record, unpack(ARGV, drops)) end
call('HSET', record, 'k', claim, 'ps', ARGV[5], 'pe', ARGV[6], unpack(ARGV, 11, 10 + n))
call('ZADD', due, valid_until, org)
return {1, claim}
