#!lua
-- discard: let a dead window go, by somebody's word and for a reason: its units are written off.
--
-- KEYS   window, dead windows, settled, record, archive of the window's period, trail, totals, then clock when ARGV[2] is
--        given
-- ARGV   caller's clock ms, test clock offset ms or '', identifier, why, who, request id
-- RETURNS {1, now} written off; {0, now} it is not dead, {-1, now} a clock that does not fit, {-2, now} its counter is gone
--        or no number: nothing written
--@ clock

local window, dead, settled, record, archive, trail, totals =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local id = ARGV[3]

local row = call('HMGET', window, 'state', 'feature', 'start', 'from', 'to')
if row[1] ~= 'dead' then return {0, now} end
local units = tonumber(row[5]) - tonumber(row[4])
local counter = call('HGET', record, 'ps') == row[3] and record or archive
local sum = 'q:' .. row[2]
local r = call('HMGET', counter, 'ps', sum)
if r[1] ~= row[3] or not string.match(r[2] or '0', '^%d+$') then return {-2, now} end

-- A key of another type ends the script here, while nothing is written.
call('ZCARD', dead)
call('ZCARD', settled)
call('XLEN', trail)
call('HLEN', totals)

call('HINCRBY', counter, sum, units)
call('HSET', window, 'state', 'written_off', 'settled', now, 'error', ARGV[4])
call('ZREM', dead, id)
call('ZADD', settled, now, id)
call('XADD', trail, '*', 'type', 'overage_written_off', 'at', now, 'window', id, 'feature', row[2], 'units', units,
  'period', row[3], 'reason', ARGV[4], 'actor', ARGV[5], 'request_id', ARGV[6])
call('HINCRBY', totals, 'e:overage_written_off', 1)
return {1, now}
