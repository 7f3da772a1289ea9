#!lua
-- begin_topup: write down an attempt to buy credits by themselves, before anything is asked of Stripe; or say why not.
--
-- KEYS   record, trail, totals, pool, burned, ledger, grants, lapsing, topups, topup, recharging, charging, then clock
--        when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', attempt, credits, minor units, currency, the customer and what
--        they pay with (sealed; '' = only say whether it would begin); then the trail's entry, its type first
-- RETURNS {1, balance} begun, or would be; {0, why, ms} not, and looked at again at that instant (0: when something
--        changes): off, stopped, begun, enough, held, changed, cooling, day, month; {-1, now} a clock that does not fit,
--        {-2, now} a figure that is no number: nothing written
--@ clock

local read, match, format = redis.pcall, string.match, string.format
--@ credits
--@ ledger
--@ topup

local LOOK_MS, DAY_MS, MONTH_MS, HOUR_MS = 120000, 86400000, 2678400000, 3600000
local credits, amount = ARGV[4], tonumber(ARGV[5])
local balance = balance_of(pool)

local function not_before(why, ms)
  call('ZADD', recharging, 'XX', ms, org)
  return {0, why, ms}
end

if kept.on ~= '1' then return {0, 'off', 0} end
if kept.why then return {0, 'stopped', 0} end
if kept.attempt then return {0, 'begun', 0} end
if not pool.low or balance >= pool.low then return {0, 'enough', 0} end
for _, g in ipairs(pool.list) do
  if g.frozen == '1' then return {0, 'held', 0} end
end
if kept.package ~= credits then return {0, 'changed', 0} end

local day, month, first, past = 0, 0, now, {}
for _, try in ipairs(tries) do
  if try.at <= now - MONTH_MS then
    past[#past + 1] = try.field
  else
    month = month + try.amount
  end
  if try.at > now - DAY_MS then day, first = day + 1, math.min(first, try.at) end
end
local ready = (tonumber(kept.last) or 0) + tonumber(kept.cooldown)
if now < ready then return not_before('cooling', ready) end
if day >= tonumber(kept.per_day) then return not_before('day', first + DAY_MS) end
if month + amount > tonumber(kept.per_month) then return not_before('month', now + HOUR_MS) end
if ARGV[8] == '' then return {1, balance} end

for _, field in ipairs(past) do call('HDEL', topup, field) end
local try, at = 't|' .. ARGV[3], format('%.0f:%.0f', now, amount)
call('HSET', topup, 'attempt', ARGV[3], 'at', now, 'last', now, 'credits', credits, 'amount', ARGV[5], 'currency', ARGV[6],
  'payer', ARGV[7], 'method', ARGV[8], try, at)
call('ZADD', charging, now + LOOK_MS, org)
call('XADD', trail, '*', 'at', now, 'attempt', ARGV[3], 'credits', credits, 'amount', ARGV[5], 'currency', ARGV[6],
  'balance', balance, 'type', unpack(ARGV, 9))
call('HINCRBY', totals, 'e:' .. ARGV[9], 1)
return {1, balance}
