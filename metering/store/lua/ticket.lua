#!lua
-- ticket: a number before Stripe is asked about an organisation. Whoever has the higher one has the newer answer.
--
-- KEYS   record, profile
-- ARGV   none
-- RETURNS the number, 1 or more; 0 no such organisation, nothing written
local call = redis.call

if call('HEXISTS', KEYS[1], 'plan') == 0 then return 0 end
return call('HINCRBY', KEYS[2], 'tickets', 1)
