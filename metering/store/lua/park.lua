#!lua
-- park: put a counter's overage by, as nobody can be billed for it.
--
-- KEYS   profile, dirty, unbilled
-- ARGV   dirty member, the stored customer as the caller saw it ('' none)
-- RETURNS 1 put by; 0 the customer is another one, or the counter has nothing unsealed: nothing written
local call = redis.call

local profile, dirty, unbilled = KEYS[1], KEYS[2], KEYS[3]
if (call('HGET', profile, 'stripe_customer') or '') ~= ARGV[2] then return 0 end
if not call('ZSCORE', dirty, ARGV[1]) then return 0 end
call('ZADD', unbilled, 0, ARGV[1])
call('ZREM', dirty, ARGV[1])
return 1
