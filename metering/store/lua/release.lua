#!lua
-- release: let go of a reservation or lease, or give it a longer life.
--
-- KEYS   record, open holds, hold, expiring, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', the hold's name, ms it shall live from now ('' let go)
-- RETURNS {1, ends ms} done; {0, why} no such open hold: 1 unknown, 2 ended, 3 settled; {-1, now} a clock that does not
--        fit, {-2, now} a figure that cannot be, {-3, now} the organisation was erased: nothing written
--@ clock

local HOLD_KEEP_S = 86400
local record, holds, hold, expiring = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local h = call('HMGET', hold, 'feature', 'quantity', 'kind', 'status', 'expires')
if call('HEXISTS', record, 'erased') == 1 then return {-3, now} end
if not h[4] then return {0, 1} end
if h[4] ~= 'held' then return {0, 3} end
local units, ends_now = tonumber(h[2]), tonumber(h[5])
if not (h[1] and units and h[3] and ends_now) then return {-2, now} end
if ends_now <= now then return {0, 2} end
local member = ARGV[3] .. '|' .. h[1] .. '|' .. h[2] .. '|' .. h[3]
if not call('ZSCORE', holds, member) then return {0, 2} end -- it ended, and a clock went back since
local held = tonumber(call('HGET', record, 'h:' .. h[1]) or 0)
if not held or held < units then return {-2, now} end

if ARGV[4] == '' then
  call('ZREM', holds, member)
  call('HINCRBY', record, 'h:' .. h[1], -units)
  call('HSET', hold, 'status', 'released', 'at', now)
  return {1, now}
end
local org = string.sub(record, string.find(record, ':o:', 1, true) + 3)
local ends = now + tonumber(ARGV[4])
call('ZADD', holds, ends, member)
call('ZADD', expiring, 'LT', ends, org)
call('HSET', hold, 'expires', ends)
call('EXPIRE', hold, math.ceil(tonumber(ARGV[4]) / 1000) + HOLD_KEEP_S)
return {1, ends}
