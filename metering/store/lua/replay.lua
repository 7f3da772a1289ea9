#!lua
-- replay: let a dead window be sent again, by somebody's word. One of which nothing can have arrived begins anew, with the
-- customer of then; any other stays what it may be at Stripe.
--
-- KEYS   window, outbox, dead windows, trail, totals, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', identifier, instant before which it is not looked at ms, who,
--        request id
-- RETURNS {1, now} it waits in the outbox; {0, now} it is not dead, {-1, now} a clock that does not fit: nothing written
--@ clock

local window, outbox, dead, trail, totals = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, due = ARGV[3], math.max(now, tonumber(ARGV[4]))

local row = call('HMGET', window, 'state', 'feature', 'start', 'from', 'to', 'first')
if row[1] ~= 'dead' then return {0, now} end
local units = tonumber(row[5]) - tonumber(row[4])

-- A key of another type ends the script here, while nothing is written.
call('ZCARD', outbox)
call('ZCARD', dead)
call('XLEN', trail)
call('HLEN', totals)

call('HSET', window, 'state', row[6] and 'inflight' or 'sealed')
call('HDEL', window, 'settled')
call('ZREM', dead, id)
call('ZADD', outbox, due, id)
call('XADD', trail, '*', 'type', 'overage_replayed', 'at', now, 'window', id, 'feature', row[2], 'units', units,
  'period', row[3], 'actor', ARGV[5], 'request_id', ARGV[6])
call('HINCRBY', totals, 'e:overage_replayed', 1)
return {1, now}
