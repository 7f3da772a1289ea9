#!lua
-- defer: an attempt to send a window did not succeed: when the next one may be, and whether this one may have arrived.
--
-- KEYS   window, outbox, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', identifier, attempts so far as the caller knows them, ms until the
--        next, what went wrong, '1' when nothing of the window can have arrived
-- RETURNS {1, now} noted; {0, now} it is settled, or somebody else tried since; {-1, now} a clock that does not fit:
--        nothing written
--@ clock

local window, outbox = KEYS[1], KEYS[2]
local row = call('HMGET', window, 'state', 'attempts')
if row[1] ~= 'inflight' or row[2] ~= ARGV[4] then return {0, now} end
call('ZCARD', outbox)
if ARGV[7] == '1' then
  call('HDEL', window, 'first')
  call('HSET', window, 'state', 'sealed', 'error', ARGV[6])
else
  call('HSET', window, 'error', ARGV[6])
end
call('ZADD', outbox, now + tonumber(ARGV[5]), ARGV[3])
return {1, now}
