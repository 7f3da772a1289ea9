#!lua
-- grant: give an organisation credits, once by the grant's id.
--
-- KEYS   record, trail, totals, pool, burned, ledger, grants, lapsing, topups, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', expected claim, new claim (for the first grant), grant, amount,
--        priority, effective ms ('' = now), expires ms ('' = never), scope, rollover, kind (p or f), what is kept of it,
--        the digest of its content, the low mark of a first grant ('' = none), the ledger's ref, what was sold
--        ('' = nothing, or currency:credits) and for how many minor units, '1' where it is frozen or '0'; then the
--        trail's entry, its type first
-- RETURNS {1, balance} made; {2, balance} made before; {3} made before with other content; {4} as many are open as may
--        be; {5, now} it expires before it begins, or has expired; {0, claim} the claim is another one ('' no organisation);
--        {-1, now} a clock that does not fit, {-2, now} a figure that is no number: nothing written
--@ clock

local read, match, format = redis.pcall, string.match, string.format
--@ credits
--@ ledger

-- What was paid for is credited beyond the first: whoever has as many begins no payment, but may have begun some.
local GRANTS_MAX, SOLD_MAX = 200, 1000
local id, amount = ARGV[5], tonumber(ARGV[6])
local effective = ARGV[8] == '' and now or tonumber(ARGV[8])
local expires = tonumber(ARGV[9] == '' and 0 or ARGV[9])
local claim, known = stored_claim()
if claim == '' then return {0, ''} end
local digest = call('HGET', keys.grants, id .. '|h')
if digest then return digest == ARGV[14] and {2, balance_of(pool)} or {3} end
if not known and claim ~= ARGV[3] then return {0, claim} end
if ARGV[9] ~= '' and (expires <= effective or expires <= now) then return {5, now} end

local open = 0
for _, g in ipairs(pool.list) do
  if g.left > 0 then open = open + 1 end
end
if open >= (ARGV[17] == '' and GRANTS_MAX or SOLD_MAX) then return {4} end
local orders, order_value = 'orders:' .. ARGV[17], 'order_value:' .. ARGV[17]
if ARGV[17] ~= '' and (total_wrong(orders) or total_wrong(order_value)) then return {-2, now} end

pool.seq = pool.seq + 1
local g = {
  id = id, left = amount, priority = tonumber(ARGV[7]), effective = effective, expires = expires, seq = pool.seq,
  scope = ARGV[10], frozen = ARGV[19], rollover = tonumber(ARGV[11]), kind = ARGV[12], expired = 0, rolled = 0,
  usable = effective <= now and ARGV[19] == '0',
}
pool.list[#pool.list + 1] = g
local balance = balance_of(pool)

if not known then
  join(ARGV[4])
  if ARGV[15] ~= '' and not pool.low then
    pool.low = tonumber(ARGV[15])
    call('HSET', keys.pool, 'low', pool.low)
  end
end
call('HSET', keys.grants, id, ARGV[13], id .. '|g', grant_text(g), id .. '|h', ARGV[14], id .. '|c', now,
  id .. '|f', ARGV[19])
call('HSET', keys.pool, 'seq', pool.seq)
write_grants(pool, keys, org, balance)
ledger_line(keys, 'granted', id, amount, balance, ARGV[16])
settle_mark(balance)
if ARGV[17] ~= '' then
  call('HINCRBY', totals, orders, 1)
  call('HINCRBY', totals, order_value, ARGV[18])
end
note(20, id, amount, balance)
return {1, balance}
