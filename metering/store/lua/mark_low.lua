#!lua
-- mark_low: set the balance below which an organisation's credits are low.
--
-- KEYS   record, trail, totals, pool, burned, ledger, grants, lapsing, topups, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', expected claim, new claim (where there were no credits so far), the
--        mark in credits ('' = none); then the trail's entry, its type first
-- RETURNS {1, balance} set; {0, claim} the claim is another one ('' no organisation); {-1, now} a clock that does not
--        fit, {-2, now} a figure that is no number: nothing written
--@ clock

local read, match, format = redis.pcall, string.match, string.format
--@ credits
--@ ledger

local low = tonumber(ARGV[5])
local claim, known = stored_claim()
if claim == '' or not known and claim ~= ARGV[3] then return {0, claim} end
local balance = balance_of(pool)
if low == pool.low then return {1, balance} end

if not known then join(ARGV[4]) end
pool.low = low
if low then call('HSET', keys.pool, 'low', low) else call('HDEL', keys.pool, 'low') end
settle_mark(balance)
if low and balance < low then call('ZADD', keys.topups, 'NX', now, org) end
call('XADD', trail, '*', 'at', now, 'low', ARGV[5], 'balance', balance, 'type', unpack(ARGV, 6))
call('HINCRBY', totals, 'e:' .. ARGV[6], 1)
return {1, balance}
