#!lua
-- dismiss: take a Stripe event that is done out of the inbox, and count it where no organisation has.
--
-- KEYS   inbox, totals
-- ARGV   group that reads the inbox, entry, type to count it under ('' = it was counted with its effect)
-- RETURNS 1 taken out; 0 it was gone already: nothing written, so it counts once however often it is taken out
local call = redis.call

local inbox, totals, group, entry, kind = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
if #call('XRANGE', inbox, entry, entry) == 0 then return 0 end

-- First: a total that is no number ends the script here, while nothing is written.
if kind ~= '' then call('HINCRBY', totals, 'e:' .. kind, 1) end
call('XDEL', inbox, entry)
call('XACK', inbox, group, entry)
return 1
