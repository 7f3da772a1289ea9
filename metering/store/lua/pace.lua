#!lua
-- pace: a place in the row of calls to Stripe, for all workers together (the generic cell rate algorithm).
--
-- KEYS   stripe
-- ARGV   microseconds between two calls, microseconds that a call may come early
-- RETURNS 0 go; otherwise microseconds to wait before asking again, nothing written
local call, floor = redis.call, math.floor

local interval, early = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local next_us = tonumber(call('HGET', KEYS[1], 'pace_us') or 0)
-- A clock that went back must not hold everybody up.
if next_us > now + early + 60000000 then next_us = now end
if next_us < now then next_us = now end
local wait = next_us - early - now
if wait > 0 then return floor(wait) end
call('HSET', KEYS[1], 'pace_us', next_us + interval)
return 0
