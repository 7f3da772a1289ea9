#!lua
-- enqueue: append events that were accepted and are not counted yet to the queue of their partition, all or none.
--
-- KEYS   queue, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', how many entries the queue may hold, then for each event:
--        sealed name, sealed id of the organisation, sealed event
-- RETURNS {1, now, length} appended: each entry was accepted at the ms of its own name, plus its `offset` if it has
--        one; {0, now, length} the queue would hold more than it may; {-1, now, 0} clocks apart, or another test
--        offset; nothing written
local call = redis.call
local SKEW_MAX_MS = 60000

local queue, offset = KEYS[1], ARGV[2]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if math.abs(now - tonumber(ARGV[1])) > SKEW_MAX_MS then return {-1, now, 0} end
if offset ~= '' then
  if call('GET', KEYS[2]) ~= offset then return {-1, now, 0} end
  now = now + tonumber(offset)
end
local length, events = call('XLEN', queue), (#ARGV - 3) / 3
if length + events > tonumber(ARGV[3]) then return {0, now, length} end

for i = 4, #ARGV, 3 do
  if offset == '' then
    call('XADD', queue, '*', 'org', ARGV[i], 'to', ARGV[i + 1], 'box', ARGV[i + 2])
  else
    call('XADD', queue, '*', 'org', ARGV[i], 'to', ARGV[i + 1], 'box', ARGV[i + 2], 'offset', offset)
  end
end
return {1, now, length + events}
