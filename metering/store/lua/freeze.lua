#!lua
-- freeze: note that a closed period is invoiced: what is counted in it from now on is on no invoice by itself.
--
-- KEYS   the period's archive
-- ARGV   instant of the invoice in ms
-- RETURNS 1 noted; 0 it was noted before, -1 no such period: nothing written
local call = redis.call

if not call('HGET', KEYS[1], 'ps') then return -1 end
return call('HSETNX', KEYS[1], 'iv', tonumber(ARGV[1]))
