#!lua
-- take_back: bring a grant to where so many of its credits are taken back in all. A refund asks for more, one that failed
-- for less again, and a revocation for all that is left, for good. What was burned or has expired cannot be taken.
--
-- KEYS   record, trail, totals, pool, burned, ledger, grants, lapsing, topups, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', grant, credits asked back in all, ticket of the reading that says
--        so ('' = a revocation), the spans of those credits that are owed where they are gone already (from:to, after
--        commas), the ledger's ref and the trail's refund where more is taken than before and where less ('' = none): ref,
--        ref, refund, refund; the currency of the refunds that the reading found ('' = it found none) and four figures of them, which only grow:
--        refunds begun and their minor units, those of them that failed and theirs; then the trail's entry, its type first
-- RETURNS {1, asked, taken, owed, balance} done, or as it was; {2, the same} a newer reading was taken over before; {0}
--        no such grant; {-1, now} a clock that does not fit, {-2, now} a figure that is no number: nothing written
--@ clock

local read, match, format = redis.pcall, string.match, string.format
--@ credits
--@ ledger

local id, ticket = ARGV[3], ARGV[5]
local kept = call('HMGET', keys.grants, id, id .. '|a', id .. '|t', id .. '|o', id .. '|v', id .. '|r', id .. '|d',
  id .. '|f', id .. '|g', id .. '|m')
if not kept[1] then return {0} end
local asked, taken, owed, newest =
  tonumber(kept[2] or 0), tonumber(kept[3] or 0), tonumber(kept[4] or 0), tonumber(kept[5] or 0)
if not (asked and taken and owed and newest) then return {-2, now} end
local revoked, negative = kept[6] or '0', kept[7] or ''
if ticket ~= '' and tonumber(ticket) < newest then return {2, asked, taken, owed, balance_of(pool)} end

-- The figures of refunds, and what they grew by since the reading before, by the name of their total.
local refunds, grown = {}, {}
if ARGV[11] ~= '' then
  local known = {match(kept[10] or '0:0:0:0', '^(%d+):(%d+):(%d+):(%d+)$')}
  for i, kind in ipairs({'refunds:', 'refund_value:', 'refunds_failed:', 'refund_failed_value:'}) do
    local before, name = tonumber(known[i]), kind .. ARGV[11]
    if not before or total_wrong(name) then return {-2, now} end
    refunds[i] = math.max(before, tonumber(ARGV[11 + i]))
    if refunds[i] > before then grown[name] = refunds[i] - before end
  end
end

local g = pool.by_id[id]
local asked_now, revoked_now, negative_now = asked, revoked, negative
if ticket == '' then
  revoked_now = '1'
else
  asked_now, negative_now = tonumber(ARGV[4]), ARGV[6]
end
local most = taken + (g and g.left or 0)
local taken_now = (revoked_now == '1' or asked_now > most) and most or asked_now
local owed_now = 0
for from, to in string.gmatch(negative_now, '(%d+):(%d+)') do
  owed_now = owed_now + math.max(0, math.min(tonumber(to), asked_now) - math.max(tonumber(from), taken_now))
end

-- Credits that come back stand in the grant as it was written, as if they had never been gone: they expire with it.
local function restored(credits)
  local head, tail = match(g and g.text or kept[9] or '', '^%d+(:%d+:%d+:%d+:%d+:[^:]*:)[01](:.*)$')
  if not head then return nil end
  local text = format('%.0f', credits + (g and g.before or 0)) .. head .. (kept[8] or '0') .. tail
  return grant_of(id, text)
end

local back = taken - taken_now
if back > 0 then
  local made = restored(back)
  if not made then return {-2, now} end
  made.text = g and g.text
  if g then
    for i = 1, #pool.list do
      if pool.list[i] == g then pool.list[i] = made end
    end
  else
    pool.list[#pool.list + 1] = made
  end
  g = made
elseif back < 0 then
  g.left = g.left + back
  g.usable = g.usable and g.left > 0
end
pool.debt = pool.debt + owed_now - owed
if pool.debt < 0 then return {-2, now} end
local balance = balance_of(pool)
local credits = taken_now - taken + owed_now - owed
local changed = asked_now ~= asked or taken_now ~= taken or owed_now ~= owed or revoked_now ~= revoked

if ticket ~= '' then call('HSET', keys.grants, id .. '|v', tonumber(ticket)) end
if ARGV[11] ~= '' then call('HSET', keys.grants, id .. '|m', format('%.0f:%.0f:%.0f:%.0f', unpack(refunds))) end
for name, more in pairs(grown) do call('HINCRBY', totals, name, more) end
if changed then
  call('HSET', keys.grants, id .. '|a', asked_now, id .. '|t', taken_now, id .. '|o', owed_now, id .. '|r', revoked_now,
    id .. '|d', negative_now)
  if owed_now ~= owed then call('HSET', keys.pool, 'debt', pool.debt) end
  write_grants(pool, keys, org, balance)
  local kind = ticket == '' and 'revoked' or credits < 0 and 'restored' or 'refunded'
  ledger_line(keys, kind, id, math.abs(credits), balance, ARGV[credits < 0 and 8 or 7])
  settle_mark(balance)
  note(16, id, credits, balance, ARGV[credits < 0 and 10 or 9])
end
return {1, asked_now, taken_now, owed_now, balance}
