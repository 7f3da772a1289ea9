#!lua
-- set_aside: move a Stripe event between the inbox and the events that could not take effect, so that it is in one of
-- the two whatever crashes.
--
-- KEYS   from, to
-- ARGV   group that reads from, entry, how many entries `to` keeps, about (0 = all), why ('' = it is to be tried again)
-- RETURNS 1 moved; 0 it was gone already: nothing written
local call = redis.call

local from, to, group, entry, most, why = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local found = call('XRANGE', from, entry, entry)
if #found == 0 then return 0 end
local said, carried = found[1][2], {}
for i = 1, #said, 2 do
  if said[i] ~= 'why' then
    carried[#carried + 1] = said[i]
    carried[#carried + 1] = said[i + 1]
  end
end
if why ~= '' then
  carried[#carried + 1] = 'why'
  carried[#carried + 1] = why
end

-- A key of another type ends the script here, while nothing is written.
if most > 0 then
  call('XADD', to, 'MAXLEN', '~', most, '*', unpack(carried))
else
  call('XADD', to, '*', unpack(carried))
end
call('XDEL', from, entry)
call('XACK', from, group, entry)
return 1
