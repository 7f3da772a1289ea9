#!lua
-- link: take up again what was put by of an organisation, as somebody pays for it now.
--
-- KEYS   profile, dirty, unbilled, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', organisation
-- RETURNS {n, now} so many counters taken up: none where the organisation has no customer; {-1, now} a clock that does not
--        fit: nothing written
--@ clock

local profile, dirty, unbilled = KEYS[1], KEYS[2], KEYS[3]
if not call('HGET', profile, 'stripe_customer') then return {0, now} end
-- All scores are the same, so members stand by their names; '}' comes right after '|'.
local members = call('ZRANGEBYLEX', unbilled, '[' .. ARGV[3] .. '|', '(' .. ARGV[3] .. '}')
call('ZCARD', dirty)
for i = 1, #members do
  call('ZADD', dirty, 'NX', now, members[i])
  call('ZREM', unbilled, members[i])
end
return {#members, now}
