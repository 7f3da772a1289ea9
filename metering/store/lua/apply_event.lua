#!lua
-- apply_event: what an event of Stripe's does to an organisation: settings, plan, limits and the period's end, with its
-- entries in the trail and the mark that it was done. All of it or nothing, and a repeated event nothing.
--
-- KEYS   record, profile, trail, plans, due, totals, grace, the mark, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', expected claim, new claim (the same: only the trail and the mark
--        are written), plan, seconds to keep the mark ('' = no mark), end of grace in ms ('' = no grace), six counts:
--        record values, record drops, profile values, profile drops, totals to raise by one, trail entries; then the
--        first five; then per entry how many words it has and those, its type first
-- RETURNS {1, claim} done; {2, claim} done before, nothing written; {0, claim} the claim is another one ('' no
--        organisation); {-1, now} a clock that does not fit, {-2, now} a figure that is no number: nothing written
--@ clock
--@ moving

local match, sub = string.match, string.sub
local record, profile, trail, plans, due, totals, grace, mark =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local expected, claim, plan, keep_s, grace_ends = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local valid_until = tonumber(match(claim, '^%d+'))
local stored = call('HMGET', record, 'k', 'plan')
if keep_s ~= '' and call('GET', mark) then return {2, stored[1] or ''} end
if (stored[1] or '') ~= expected then return {0, stored[1] or ''} end
if now >= valid_until then return {-1, now} end

local at = 14
local function section(count)
  local from = at
  at = at + count
  if count == 0 then return {} end
  return {unpack(ARGV, from, at - 1)}
end
local record_values, record_drops = section(tonumber(ARGV[8])), section(tonumber(ARGV[9]))
local profile_values, profile_drops = section(tonumber(ARGV[10])), section(tonumber(ARGV[11]))
local counted = section(tonumber(ARGV[12]))
local entries = {}
for i = 1, tonumber(ARGV[13]) do
  at = at + 1
  entries[i] = section(tonumber(ARGV[at - 1]))
end
local org = sub(record, string.find(record, ':o:', 1, true) + 3)

local moved = units_to_move(record, stored[2], plan)
if not moved then return {-2, now} end

-- A key of another type ends the script here, while nothing is written.
call('HLEN', profile)
call('XLEN', trail)
call('HLEN', plans)
call('ZCARD', due)
call('HLEN', totals)
call('ZCARD', grace)

if claim ~= expected then
  if #record_drops > 0 then call('HDEL', record, unpack(record_drops)) end
  call('HSET', record, 'k', claim, 'plan', plan, unpack(record_values))
  move_units(record, stored[2], plan, moved)
  if #profile_drops > 0 then call('HDEL', profile, unpack(profile_drops)) end
  call('HSET', profile, 'updated', now, unpack(profile_values))
  if stored[2] ~= plan then
    call('HINCRBY', plans, stored[2], -1)
    call('HINCRBY', plans, plan, 1)
  end
  call('ZADD', due, valid_until, org)
  if grace_ends == '' then call('ZREM', grace, org) else call('ZADD', grace, tonumber(grace_ends), org) end
end
for i = 1, #entries do
  call('XADD', trail, '*', 'at', now, 'type', unpack(entries[i]))
  call('HINCRBY', totals, 'e:' .. entries[i][1], 1)
end
for i = 1, #counted do call('HINCRBY', totals, counted[i], 1) end
if keep_s ~= '' then call('SET', mark, now, 'EX', tonumber(keep_s)) end
return {1, claim}
