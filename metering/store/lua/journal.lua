#!lua
-- journal: note that Stripe took a window, before anything else is done about it. Noted twice it stands there once.
--
-- KEYS   journal of the lane's day
-- ARGV   identifier, hour and units (`13|250`), seconds to keep the day
-- RETURNS 1 noted; 0 it stood there
local call = redis.call

local added = call('HSET', KEYS[1], ARGV[1], ARGV[2])
call('EXPIRE', KEYS[1], tonumber(ARGV[3]))
return added
