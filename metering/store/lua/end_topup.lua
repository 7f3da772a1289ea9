#!lua
-- end_topup: write down how an attempt to buy credits by themselves ended, once.
--
-- KEYS   record, trail, totals, pool, burned, ledger, grants, lapsing, topups, topup, recharging, charging, then clock
--        when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', attempt ('' = none was begun: it only stops), whether it was paid
--        (1 or 0), why no more are made ('' = they go on), Stripe's word for it; then the trail's entry, its type first
-- RETURNS {1, balance} ended; {2, balance} it had ended before; {-1, now} a clock that does not fit, {-2, now} a figure
--        that is no number: nothing written
--@ clock

local read, match, format = redis.pcall, string.match, string.format
--@ credits
--@ ledger
--@ topup

local attempt, why, balance = ARGV[3], ARGV[5], balance_of(pool)
if (kept.attempt or '') ~= attempt or kept.why and attempt == '' then return {2, balance} end

if attempt ~= '' then
  call('HDEL', topup, 'attempt')
  call('ZREM', charging, org)
  local try, at = 't|' .. attempt, format('%.0f:0', tonumber(kept.at))
  if ARGV[4] ~= '1' then call('HSET', topup, try, at) end
  call('HSET', topup, 'done', attempt, 'paid', ARGV[4])
end
if why ~= '' then
  call('HSET', topup, 'why', why, 'detail', ARGV[6], 'stopped', now)
  call('ZREM', recharging, org)
end
call('XADD', trail, '*', 'at', now, 'attempt', attempt, 'paid', ARGV[4], 'why', why, 'detail', ARGV[6], 'balance', balance,
  'type', unpack(ARGV, 7))
call('HINCRBY', totals, 'e:' .. ARGV[7], 1)
return {1, balance}
