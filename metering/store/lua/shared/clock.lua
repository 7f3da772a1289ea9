-- The store's effective time: TIME, and in test-clock mode the stored offset, whose key is the last one. ARGV[1] is the
-- caller's clock in ms, ARGV[2] the offset the caller knows ('' in a live data set); where one of them does not fit, the
-- script ends here with {-1, now}.
local call, floor = redis.call, math.floor
local SKEW_MAX_MS = 60000

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
if math.abs(now - tonumber(ARGV[1])) > SKEW_MAX_MS then return {-1, now} end
if ARGV[2] ~= '' then
  if call('GET', KEYS[#KEYS]) ~= ARGV[2] then return {-1, now} end
  now = now + tonumber(ARGV[2])
end
