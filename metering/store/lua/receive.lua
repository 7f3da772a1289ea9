#!lua
-- receive: keep a Stripe event that comes in for the first time: the mark of its id and its entry, both or neither.
--
-- KEYS   mark, inbox
-- ARGV   ms that the mark stands, how many entries the inbox may hold, event id, its type, the event in a box
-- RETURNS {1, length} kept; {0, length} it came in before; {-1, length} the inbox is full; nothing written by the
--        latter two
local call = redis.call

local mark, inbox = KEYS[1], KEYS[2]
local length = call('XLEN', inbox)
if call('EXISTS', mark) == 1 then return {0, length} end
if length >= tonumber(ARGV[2]) then return {-1, length} end

call('SET', mark, ARGV[4], 'PX', tonumber(ARGV[1]))
call('XADD', inbox, '*', 'event', ARGV[3], 'type', ARGV[4], 'box', ARGV[5])
return {1, length + 1}
