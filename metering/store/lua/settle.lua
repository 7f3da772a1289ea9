#!lua
-- settle: the way of a window is over: its state, the counter's sums and its place in the lists in one step.
--
-- KEYS   window, outbox, settled, dead windows, record, archive of the window's period, trail, totals, then clock when
--        ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', identifier, how it ended (delivered, dead or written_off; known:
--        Stripe had it already; revoked: it was delivered, and Stripe could not use it), attempts as the caller knows them
--        ('' any), why, another sink ('' as it is), '1' when nothing of the window can have arrived
-- RETURNS {1, now} settled; {0, now} it was before, or somebody else tried since; {-1, now} a clock that does not fit,
--        {-2, now} its counter is gone or no number: nothing written
--@ clock

local window, outbox, settled, dead, record, archive, trail, totals =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local id, state, why = ARGV[3], ARGV[4], ARGV[6]

local row = call('HMGET', window, 'state', 'attempts', 'feature', 'start', 'from', 'to')
local known, revoked = state == 'known', state == 'revoked'
if known then state = 'delivered' end
if revoked then
  if row[1] ~= 'delivered' then return {0, now} end
elseif row[1] == 'dead' then
  if state == 'dead' then return {0, now} end
elseif row[1] ~= 'sealed' and row[1] ~= 'inflight' then
  return {0, now}
end
if ARGV[5] ~= '' and (row[2] or '0') ~= ARGV[5] then return {0, now} end
local units = tonumber(row[6]) - tonumber(row[5])
local counter = call('HGET', record, 'ps') == row[4] and record or archive
local sum = (state == 'written_off' and 'q:' or 'd:') .. row[3]
local r = call('HMGET', counter, 'ps', sum)
if r[1] ~= row[4] or not string.match(r[2] or '0', '^%d+$') then return {-2, now} end

-- A key of another type ends the script here, while nothing is written.
call('ZCARD', outbox)
call('ZCARD', settled)
call('ZCARD', dead)
call('XLEN', trail)
call('HLEN', totals)

if revoked then
  call('HINCRBY', counter, sum, -units)
  state = 'dead'
elseif state ~= 'dead' then
  call('HINCRBY', counter, sum, units)
end
call('HSET', window, 'state', state, 'settled', now, 'error', why)
if ARGV[7] ~= '' then call('HSET', window, 'sink', ARGV[7]) end
if ARGV[8] == '1' then call('HDEL', window, 'first') end
call('ZREM', outbox, id)
call('ZREM', settled, id)
call('ZREM', dead, id)
if state == 'dead' then call('ZADD', dead, now, id) else call('ZADD', settled, now, id) end
if state == 'delivered' then
  call('HINCRBY', totals, known and 'w:known' or 'w:new', 1)
else
  local kind = state == 'dead' and 'overage_refused' or 'overage_written_off'
  call('XADD', trail, '*', 'type', kind, 'at', now, 'window', id, 'feature', row[3], 'units', units, 'period', row[4],
    'reason', why)
  call('HINCRBY', totals, 'e:' .. kind, 1)
end
return {1, now}
