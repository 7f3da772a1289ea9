#!lua
-- create_key: keep an API key, list it under its owner, and note it in the trail of its organisation.
--
-- KEYS   key, the partition's list of keys, totals, test clock, then record and trail of the organisation, if it has one
-- ARGV   digest, member of the list, first and last that the owner may have in it, most keys of one owner, count of the
--        key's further fields and values; then those; then the trail entry's fields and values, its type first
-- RETURNS {1, created ms} kept, or was by this very call before; {0, 0} no such organisation; {2, 0} the owner has as
--        many keys as it may; {3, 0} the id is another key's: nothing written
local call, floor = redis.call, math.floor

local key, list, totals, clock, record, trail = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local time = call('TIME')
local created = time[1] * 1000 + floor(time[2] / 1000)
local kept = call('HMGET', key, 'digest', 'created')
if kept[1] == ARGV[1] then return {1, tonumber(kept[2])} end
if kept[1] then return {3, 0} end
if record and call('HEXISTS', record, 'plan') == 0 then return {0, 0} end
if call('ZLEXCOUNT', list, ARGV[3], ARGV[4]) >= tonumber(ARGV[5]) then return {2, 0} end
local n = tonumber(ARGV[6])
-- Credentials live by the clock of the machines; only the trail is told in the time of a test clock.
local at = created + tonumber(call('GET', clock) or 0)
-- A key of another type ends the script here, while nothing is written.
call('HLEN', totals)
if trail then call('XLEN', trail) end

call('HSET', key, 'digest', ARGV[1], 'created', created, unpack(ARGV, 7, 6 + n))
call('ZADD', list, 0, ARGV[2])
if trail then call('XADD', trail, '*', 'at', at, 'type', unpack(ARGV, 7 + n)) end
call('HINCRBY', totals, 'e:' .. ARGV[7 + n], 1)
return {1, created}
