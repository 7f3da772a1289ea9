#!lua
-- change_plan: apply a plan, overrides or other settings to an organisation, or create it, with its trail entry.
--
-- KEYS   record, profile, trail, orgs, plans, due, totals, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', expected claim ('' = create), new claim, plan,
--        three counts: record values, record drops, profile values; then those; then the trail entry's fields and
--        values, its type first
-- RETURNS {1, claim} changed; {0, claim} the claim is another one ('' no organisation); {-1, now} a clock that
--        does not fit, {-2, now} a figure that is no number: nothing written
--@ clock
--@ moving

local match, sub = string.match, string.sub
local record, profile, trail, orgs, plans, due, totals = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local claim, plan = ARGV[4], ARGV[5]
local valid_until = tonumber(match(claim, '^%d+'))
if now >= valid_until then return {-1, now} end
local stored = call('HMGET', record, 'k', 'plan')
if (stored[1] or '') ~= ARGV[3] then return {0, stored[1] or ''} end

local function section(from, count)
  if count == 0 then return {} end
  return {unpack(ARGV, from, from + count - 1)}
end
local n1, n2, n3 = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local record_values, record_drops = section(9, n1), section(9 + n1, n2)
local profile_values = section(9 + n1 + n2, n3)
local entry = section(9 + n1 + n2 + n3, #ARGV - (8 + n1 + n2 + n3))
local org = sub(record, string.find(record, ':o:', 1, true) + 3)

local moved = units_to_move(record, stored[2], plan)
if not moved then return {-2, now} end

-- A key of another type ends the script here, while nothing is written.
call('HLEN', profile)
call('XLEN', trail)
call('ZCARD', orgs)
call('HLEN', plans)
call('ZCARD', due)
call('HLEN', totals)

if #record_drops > 0 then call('HDEL', record, unpack(record_drops)) end
call('HSET', record, 'k', claim, 'plan', plan, unpack(record_values))
move_units(record, stored[2], plan, moved)
call('HSET', profile, 'updated', now, unpack(profile_values))
if not stored[1] then
  call('ZADD', orgs, 0, org)
  call('HINCRBY', plans, plan, 1)
elseif stored[2] ~= plan then
  call('HINCRBY', plans, stored[2], -1)
  call('HINCRBY', plans, plan, 1)
end
call('ZADD', due, valid_until, org)
call('XADD', trail, '*', 'at', now, 'type', unpack(entry))
call('HINCRBY', totals, 'e:' .. entry[1], 1)
return {1, claim}
