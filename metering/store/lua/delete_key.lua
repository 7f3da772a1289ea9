#!lua
-- delete_key: end an API key, and note it in the trail of its organisation. Clocks that differ do not keep it: a key
-- that leaked has to go whatever else is wrong.
--
-- KEYS   key, mark of its end, the partition's list of keys, totals, test clock, then trail of the organisation, if it
--        has one
-- ARGV   member of the list, owner, how long the mark is kept in ms, then the trail entry's fields and values, its type
--        first
-- RETURNS 1 deleted; 2 it was deleted before; 0 there is no such key
local call, floor = redis.call, math.floor

local key, mark, list, totals, clock, trail = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
if call('EXISTS', key) == 0 then return call('EXISTS', mark) * 2 end
local at = now + tonumber(call('GET', clock) or 0)
-- A key of another type ends the script here, while nothing is written.
call('ZCARD', list)
call('HLEN', totals)
if trail then call('XLEN', trail) end

call('SET', mark, ARGV[2], 'PX', tonumber(ARGV[3]))
call('DEL', key)
call('ZREM', list, ARGV[1])
if trail then call('XADD', trail, '*', 'at', at, 'type', unpack(ARGV, 4)) end
call('HINCRBY', totals, 'e:' .. ARGV[4], 1)
return 1
