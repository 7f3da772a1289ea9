#!lua
-- expire: forget holds that ended and count for nothing then, and note when the organisation's next one ends.
--
-- KEYS   record, open holds, expiring, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', then features whose holds are forgotten however they end
-- RETURNS {1, forgotten}; {-1, now} a clock that does not fit, {-2, now} a figure that cannot be: nothing written
--@ clock

local MEMBERS_MAX = 1000 -- no organisation has more open holds
local record, holds, expiring = KEYS[1], KEYS[2], KEYS[3]
local org = string.sub(record, string.find(record, ':o:', 1, true) + 3)

-- Of an erased organisation nothing is kept, and no list may name it anew.
if call('HEXISTS', record, 'erased') == 1 then
  call('ZREM', expiring, org)
  return {1, 0}
end

local ended = call('ZRANGEBYSCORE', holds, '-inf', now, 'LIMIT', 0, MEMBERS_MAX)
local units, members, forgiven = {}, {}, {}
for i = 3, #ARGV do forgiven[ARGV[i]] = true end
for i = 1, #ended do
  local feature, quantity, kind = string.match(ended[i], '^[^|]+|([^|]+)|(%d+)|(%a)$')
  if not kind then return {-2, now} end
  if kind ~= 'c' or forgiven[feature] then
    units[feature] = (units[feature] or 0) + tonumber(quantity)
    members[#members + 1] = ended[i]
  end
end
for feature, quantity in pairs(units) do
  local held = tonumber(call('HGET', record, 'h:' .. feature) or 0)
  if not held or held < quantity then return {-2, now} end
end
call('ZCARD', expiring)

if #members > 0 then call('ZREM', holds, unpack(members)) end
for feature, quantity in pairs(units) do call('HINCRBY', record, 'h:' .. feature, -quantity) end
local first = call('ZRANGE', holds, 0, 0, 'WITHSCORES')
if first[1] then call('ZADD', expiring, first[2], org) else call('ZREM', expiring, org) end
return {1, #members}
