-- An organisation's pool of credits: the twin of plans/credits.py. The script brings `call`, `read`, `floor`, `match`,
-- `format` and `now`. Keys of a pool, by name: pool, burned, ledger, grants, lapsing, topups, and crossings for burns.
local LOW_MARKS_MAX = 100000
local GRANT_TEXT = '^(%d+):(%d+):(%d+):(%d+):(%d+):([^:]*):([01]):(%d+):([pf])$'

-- ── reading ─────────────────────────────────────────────────────────────────────────────────────────────

-- One grant as it stands now: what expired of it, and what went into its second span, beside it. Nil: no grant.
local function grant_of(id, text)
  local left, priority, effective, expires, seq, scope, frozen, rollover, kind = match(text, GRANT_TEXT)
  if not left then return nil end
  local g = {
    id = id, text = text, left = tonumber(left), priority = tonumber(priority), effective = tonumber(effective),
    expires = tonumber(expires), seq = tonumber(seq), scope = scope, frozen = frozen, rollover = tonumber(rollover),
    kind = kind, expired = 0, rolled = 0,
  }
  g.before = g.left
  g.was_usable = g.frozen == '0' and g.effective <= now
  if g.expires > 0 and g.expires <= now then
    local kept, ends = math.min(g.left, g.rollover), 2 * g.expires - g.effective
    g.rollover = 0
    if kept > 0 and now < ends then
      g.left, g.expired, g.expires, g.rolled = kept, g.left - kept, ends, kept
    else
      g.left, g.expired = 0, g.left
    end
  end
  g.usable = g.was_usable and g.left > 0
  return g
end

local function burns_before(one, other)
  if one.priority ~= other.priority then return one.priority < other.priority end
  if one.expires ~= other.expires then
    return one.expires > 0 and (other.expires == 0 or one.expires < other.expires)
  end
  return one.seq < other.seq
end

-- The pool: its grants in burn order, and what was burned of it here, by feature and grant. Nil where it is corrupt.
local function pool_of(key)
  local flat = read('HGETALL', key)
  if flat.err then return nil end
  local pool = {list = {}, by_id = {}, burned = {}, debt = 0, seq = 0}
  for i = 1, #flat, 2 do
    local field, text = flat[i], flat[i + 1]
    if field == 'debt' or field == 'low' or field == 'seq' then
      pool[field] = match(text, '^%d+$') and tonumber(text)
      if not pool[field] then return nil end
    else
      local g = grant_of(field, text)
      if not g then return nil end
      pool.list[#pool.list + 1], pool.by_id[field] = g, g
    end
  end
  table.sort(pool.list, burns_before)
  return pool
end

-- Credits that may be used now, less what is owed.
local function balance_of(pool)
  local sum = -pool.debt
  for _, g in ipairs(pool.list) do
    if g.usable then sum = sum + g.left end
  end
  return sum
end

-- The same as it was when the pool was written last: what expired since still counts.
local function balance_before(pool)
  local sum = -pool.debt
  for _, g in ipairs(pool.list) do
    if g.was_usable then sum = sum + g.before end
  end
  return sum
end

-- ── paying ──────────────────────────────────────────────────────────────────────────────────────────────

-- Units of a feature that are paid for: by grants for it alone, and by the pool at `weight` credits a unit (nil: it
-- takes none), less `reserved` credits of it. Third: the credits of the pool.
local function cover_of(pool, feature, weight, reserved)
  local own, credits = 0, -pool.debt - reserved
  for _, g in ipairs(pool.list) do
    if g.usable then
      if g.scope == '' then credits = credits + g.left elseif g.scope == feature then own = own + g.left end
    end
  end
  credits = credits > 0 and credits or 0
  return own, weight and floor(credits / weight) or 0, credits
end

-- Whether a grant that is open is for this feature alone.
local function has_own(pool, feature)
  for _, g in ipairs(pool.list) do
    if g.scope == feature and g.left > 0 then return true end
  end
  return false
end

local function put(place, field, value) place[field] = value end

-- What paid for `credit` units of a counter so far: units by grants for its feature alone, and credits of the pool. Nil
-- where the text is none; where nothing was noted they were paid at today's weight.
local function spent_of(text, credit, weight)
  if not text then return weight and 0 or credit, credit * (weight or 0) end
  local own, pooled = match(text, '^(%d+):(%d+)$')
  return tonumber(own), tonumber(pooled)
end

local function spent_text(own, pooled) return format('%.0f:%.0f', own, pooled) end

-- Pays `units` of a feature, of which the pool may pay `pooled`; all of them must be covered. Returns the credits, and
-- those of them that grants for the feature alone gave. `set` writes into tables, so that a caller can undo it.
local function burn(pool, feature, weight, units, pooled, set)
  weight = weight or 1
  local todo, begun, sum, own = units, 0, 0, 0
  local budget = (pooled < units and pooled or units) * weight
  for _, g in ipairs(pool.list) do
    local take = 0
    if not g.usable then
      take = 0
    elseif g.scope == feature then
      take = math.min(g.left, todo - (begun > 0 and 1 or 0))
      todo, own = todo - take, own + take
    elseif g.scope == '' then
      take = math.min(g.left, budget, todo * weight - begun)
      budget, begun = budget - take, begun + take
      todo = todo - floor(begun / weight)
      begun = begun % weight
    end
    if take > 0 then
      local line = feature .. '|' .. g.id
      set(g, 'left', g.left - take)
      set(pool.burned, line, (pool.burned[line] or 0) + take)
      sum = sum + take
    end
  end
  return sum, own
end

-- ── writing ─────────────────────────────────────────────────────────────────────────────────────────────

local function grant_text(g)
  return format('%.0f:%.0f:%.0f:%.0f:%.0f:%s:%s:%.0f:%s', g.left, g.priority, g.effective, g.expires, g.seq, g.scope,
    g.frozen, g.rollover, g.kind)
end

-- Whether a key of the pool has another type, or a sum to add to is no number. `day` is the UTC day, yyyymmdd.
local function pool_wrong(pool, keys, day)
  local replies = {
    read('HLEN', keys.burned), read('XLEN', keys.ledger), read('HLEN', keys.grants), read('ZCARD', keys.lapsing),
    read('ZCARD', keys.topups), keys.crossings and read('XLEN', keys.crossings),
  }
  for i = 1, #replies do
    if type(replies[i]) == 'table' then return true end
  end
  for line in pairs(pool.burned) do
    local sum = call('HGET', keys.burned, day .. '|' .. line)
    if sum and not match(sum, '^%d+$') then return true end
  end
  for _, g in ipairs(pool.list) do
    local sum = g.expired > 0 and call('HGET', keys.grants, g.id .. '|x')
    if sum and not match(sum, '^%d+$') then return true end
  end
  return false
end

local function ledger_line(keys, kind, grant, credits, balance, ref)
  call('XADD', keys.ledger, '*', 'type', kind, 'grant', grant, 'credits', credits, 'balance', balance, 'at', now,
    'ref', ref or '')
end

-- Writes grants that changed, what of them expired with its lines, and when the next one does.
local function write_grants(pool, keys, org, balance)
  local next_ms = 0
  for _, g in ipairs(pool.list) do
    local text = grant_text(g)
    if g.left == 0 then
      call('HDEL', keys.pool, g.id)
    elseif text ~= g.text then
      call('HSET', keys.pool, g.id, text)
    end
    if g.expired > 0 then
      call('HINCRBY', keys.grants, g.id .. '|x', g.expired)
      ledger_line(keys, 'expired', g.id, g.expired, balance)
    end
    if g.rolled > 0 then ledger_line(keys, 'rolled_over', g.id, g.rolled, balance) end
    if g.left > 0 and g.expires > 0 and (next_ms == 0 or g.expires < next_ms) then next_ms = g.expires end
  end
  if next_ms > 0 then call('ZADD', keys.lapsing, next_ms, org) else call('ZREM', keys.lapsing, org) end
end

-- Writes what was burned; where the balance fell below its mark, that is noted in the ledger, in the list of those that
-- may want more, and among the marks crossed. `sealed` is the organisation's name there.
local function write_burns(pool, keys, org, day, sealed, start_ms)
  local before, balance = balance_before(pool), balance_of(pool)
  write_grants(pool, keys, org, balance)
  for line, credits in pairs(pool.burned) do call('HINCRBY', keys.burned, day .. '|' .. line, credits) end
  if not pool.low or before < pool.low or balance >= pool.low then return end
  call('ZADD', keys.topups, 'NX', now, org)
  ledger_line(keys, 'low', '', pool.low, balance)
  call('XADD', keys.crossings, 'MAXLEN', '~', LOW_MARKS_MAX, '*', 'org', sealed, 'feature', '', 'mark', 'credits',
    'used', balance, 'limit', pool.low, 'period', start_ms, 'at', now)
end
