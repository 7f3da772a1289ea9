#!lua
-- freeze_grant: keep what is left of a grant from being used, as long as a dispute holds its money, or let it go again.
--
-- KEYS   record, trail, totals, pool, burned, ledger, grants, lapsing, topups, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', grant, '1' frozen or '0', ticket of the reading that says so, the
--        ledger's ref; then the trail's entry, its type first
-- RETURNS {1, balance} done, or as it was; {2, balance} a newer reading was taken over before; {0} no such grant;
--        {-1, now} a clock that does not fit, {-2, now} a figure that is no number: nothing written
--@ clock

local read, match, format = redis.pcall, string.match, string.format
--@ credits
--@ ledger

local id, frozen, ticket = ARGV[3], ARGV[4], tonumber(ARGV[5])
local kept = call('HMGET', keys.grants, id, id .. '|f', id .. '|u')
if not kept[1] then return {0} end
local was, newest = kept[2] or '0', tonumber(kept[3] or 0)
if not newest then return {-2, now} end
if ticket < newest then return {2, balance_of(pool)} end

local g = pool.by_id[id]
if g then
  g.frozen = frozen
  g.usable = frozen == '0' and g.effective <= now and g.left > 0
end
local balance = balance_of(pool)

call('HSET', keys.grants, id .. '|u', ticket)
if frozen ~= was then
  local left = g and g.left or 0
  call('HSET', keys.grants, id .. '|f', frozen)
  write_grants(pool, keys, org, balance)
  ledger_line(keys, frozen == '1' and 'frozen' or 'thawed', id, left, balance, ARGV[6])
  settle_mark(balance)
  note(7, id, left, balance)
end
return {1, balance}
