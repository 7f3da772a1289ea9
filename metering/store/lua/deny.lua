#!lua
-- deny: refuse tokens with an id, until they would have expired by themselves. What has expired is dropped on the way,
-- by the store's clock and the caller's, whichever is behind.
--
-- KEYS   how often something was withdrawn, the denied ids by their end
-- ARGV   caller's clock ms, id, end in ms ('inf': for ever)
-- RETURNS the end as it is now, the later one where the id was denied before
local call, floor = redis.call, math.floor

local epoch, denied = KEYS[1], KEYS[2]
local time = call('TIME')
local now = math.min(time[1] * 1000 + floor(time[2] / 1000), tonumber(ARGV[1]))
-- A key of another type ends the script here, while nothing is written.
call('ZCARD', denied)
call('HLEN', epoch)

call('ZREMRANGEBYSCORE', denied, '-inf', now)
call('ZADD', denied, 'GT', ARGV[3], ARGV[2])
call('HINCRBY', epoch, 'denials', 1)
call('HINCRBY', epoch, 'epoch', 1)
return call('ZSCORE', denied, ARGV[2])
