#!lua
-- roll: move an organisation to the present: close its period, or only renew its claim (month, tiers, catalogue).
--
-- KEYS   record, archive of the period that may close, trail, due, dirty, totals, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', expected claim, new claim, period start ms, period end ms,
--        count of values, the record's fields and values, then record fields to drop
-- RETURNS {1, claim} rolled; {0, claim} the claim is another one ('' no organisation); {-1, now} a clock or
--        period that does not fit, nothing written
local call, floor, match, sub = redis.call, math.floor, string.match, string.sub
local SKEW_MAX_MS = 60000

local record, archive, trail, due, dirty, totals = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
if math.abs(now - tonumber(ARGV[1])) > SKEW_MAX_MS then return {-1, now} end
if ARGV[2] ~= '' then
  if call('GET', KEYS[7]) ~= ARGV[2] then return {-1, now} end
  now = now + tonumber(ARGV[2])
end
local claim, start_ms, end_ms = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local n = tonumber(ARGV[7])

local flat = call('HGETALL', record)
local old = {}
for i = 1, #flat, 2 do old[flat[i]] = flat[i + 1] end
if old.k ~= ARGV[3] then return {0, old.k or ''} end
local valid_until = tonumber(match(claim, '^%d+'))
local closes = tonumber(old.ps) ~= start_ms
if now >= valid_until or now >= end_ms then return {-1, now} end
if closes and (start_ms < tonumber(old.pe) or now < start_ms) then return {-1, now} end

local org = sub(record, string.find(record, ':o:', 1, true) + 3)
local closed, drop, unsealed = {}, {}, {}
if closes then
  for field, value in pairs(old) do
    local kind, feature = sub(field, 1, 2), sub(field, 3)
    if kind == 'u:' then closed[#closed + 1] = feature end
    if kind == 'x:' and tonumber(value) > tonumber(old['s:' .. feature] or 0) then unsealed[#unsealed + 1] = feature end
    if kind == 'u:' or kind == 'x:' or kind == 's:' then drop[#drop + 1] = field end
  end
end

-- A key of another type ends the script here, while nothing is written.
call('HLEN', archive)
call('XLEN', trail)
call('ZCARD', due)
call('ZCARD', dirty)
call('HLEN', totals)

if #closed > 0 then
  call('HSET', archive, 'closed', now, unpack(flat))
  -- Units of all closed periods may pass what a Lua number holds exactly: the store adds them.
  for i = 1, #closed do call('HINCRBY', record, 'b:' .. closed[i], old['u:' .. closed[i]]) end
  call('XADD', trail, '*', 'type', 'period_closed', 'plan', old.plan, 'period', old.ps, 'until', old.pe, 'at', now)
  call('HINCRBY', totals, 'e:period_closed', 1)
end
if #drop > 0 then call('HDEL', record, unpack(drop)) end
for i = 1, #unsealed do
  call('ZREM', dirty, org .. '|' .. unsealed[i])
  call('ZADD', dirty, 'NX', now, org .. '|' .. unsealed[i] .. '|' .. old.ps)
end
if #ARGV > 7 + n then call('HDEL', record, unpack(ARGV, 8 + n)) end
call('HSET', record, 'k', claim, 'ps', ARGV[5], 'pe', ARGV[6], unpack(ARGV, 8, 7 + n))
call('ZADD', due, valid_until, org)
return {1, claim}
