-- What the scripts of the credit ledger begin with. KEYS: record, trail, totals, pool, burned, ledger, grants, lapsing,
-- topups. The script ends here with {-3, now} where the organisation was erased, with {-2, now} where a pool is none, or a
-- figure of it no number, and by the store's own error where a key has another type: while nothing is written.
local record, trail, totals = KEYS[1], KEYS[2], KEYS[3]
local keys = {
  pool = KEYS[4], burned = KEYS[5], ledger = KEYS[6], grants = KEYS[7], lapsing = KEYS[8], topups = KEYS[9],
}
local org = string.sub(record, string.find(record, ':o:', 1, true) + 3)

call('HLEN', record)
call('XLEN', trail)
call('HLEN', totals)
if call('HEXISTS', record, 'erased') == 1 then return {-3, now} end
local pool = pool_of(keys.pool)
if not pool or pool_wrong(pool, keys, '') then return {-2, now} end

-- The claim that is stored, '' where there is no organisation, and whether it is known to have had credits.
local function stored_claim()
  local found = call('HMGET', record, 'k', 'pool')
  return found[1] or '', found[2] ~= false
end

-- Notes that the organisation has credits from now on, for which every caller's copy of it runs out once.
local function join(claim) call('HSET', record, 'pool', 1, 'k', claim) end

-- A balance that rose to its mark needs no more.
local function settle_mark(balance)
  if not pool.low or balance >= pool.low then call('ZREM', keys.topups, org) end
end

-- Whether the total of a name is no number, or none that may grow.
local function total_wrong(name)
  local sum = call('HGET', totals, name)
  return sum and not match(sum, '^%d+$')
end

-- The entry of the trail: its type and other words are in ARGV from `first` on; `refund` where there is one.
local function note(first, id, credits, balance, refund)
  local words = {'at', now, 'grant', id, 'credits', credits, 'balance', balance}
  if refund and refund ~= '' then words[9], words[10] = 'refund', refund end
  words[#words + 1] = 'type'
  for i = first, #ARGV do words[#words + 1] = ARGV[i] end
  call('XADD', trail, '*', unpack(words))
  call('HINCRBY', totals, 'e:' .. ARGV[first], 1)
end
