#!lua
-- set_topup: say whether an organisation's credits are bought by themselves, and within which bounds.
--
-- KEYS   record, trail, totals, pool, burned, ledger, grants, lapsing, topups, topup, recharging, charging, then clock
--        when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', on (1 or 0), credits of the package, attempts a day, minor units
--        in 31 days, ms between two attempts, the customer who pays (sealed); then the trail's entry, its type first
-- RETURNS {1, balance} set, and what had stopped it is over; an attempt that is under way goes on. {0} there is no
--        organisation; {-1, now} a clock that does not fit, {-2, now} a figure that is no number: nothing written
--@ clock

local read, match, format = redis.pcall, string.match, string.format
--@ credits
--@ ledger
--@ topup

if call('HEXISTS', record, 'plan') == 0 then return {0} end

call('HSET', topup, 'on', ARGV[3], 'package', ARGV[4], 'per_day', ARGV[5], 'per_month', ARGV[6], 'cooldown', ARGV[7],
  'customer', ARGV[8])
call('HDEL', topup, 'why', 'detail', 'stopped')
if ARGV[3] == '1' then call('ZADD', recharging, 0, org) else call('ZREM', recharging, org) end
local balance = balance_of(pool)
call('XADD', trail, '*', 'at', now, 'package', ARGV[4], 'per_day', ARGV[5], 'per_month', ARGV[6], 'balance', balance,
  'type', unpack(ARGV, 9))
call('HINCRBY', totals, 'e:' .. ARGV[9], 1)
return {1, balance}
