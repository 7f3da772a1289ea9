#!lua
-- touch_keys: note when API keys of one partition were last used. A key that is gone stays gone.
--
-- KEYS   the keys
-- ARGV   for each of them when it was used, in ms
-- RETURNS how many were noted
local call = redis.call

local noted = {}
for i = 1, #KEYS do
  local found = call('HMGET', KEYS[i], 'digest', 'used')
  if found[1] and tonumber(found[2] or 0) < tonumber(ARGV[i]) then noted[#noted + 1] = i end
end
for _, i in ipairs(noted) do call('HSET', KEYS[i], 'used', ARGV[i]) end
return #noted
