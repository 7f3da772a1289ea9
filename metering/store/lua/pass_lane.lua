#!lua
-- pass_lane: let a window have the lane of its customer and meter, or leave it. One window at a time is on its way in a lane.
--
-- KEYS   lane
-- ARGV   the window that has it as the caller believes ('' none), the window that is to have it ('' none), its
--        organisation
-- RETURNS {1} done, or so already; {0, window, organisation} another window has it: nothing written
local call = redis.call

local lane = KEYS[1]
local r = call('HMGET', lane, 'window', 'org')
local holder = r[1] or ''
if holder == ARGV[2] then return {1} end
if holder ~= ARGV[1] then return {0, holder, r[2] or ''} end
if ARGV[2] == '' then
  call('DEL', lane)
else
  call('HSET', lane, 'window', ARGV[2], 'org', ARGV[3])
end
return {1}
