#!lua
-- seal: cut a window out of a counter's overage: the window, the figures and its place in the outbox in one step.
--
-- KEYS   record or archive, window, outbox, dirty, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', dirty member, feature, period start ms, then as the caller saw
--        them: overage sealed, given back, netted; after the seal: sealed, netted; then the window's identifier, org,
--        from, to (the same: no window is made), instant of its last unit ms
-- RETURNS {1, now} done; {0, now} something is not as the caller saw it, {-1, now} a clock that does not fit, {-2, now}
--        a figure that is no number: nothing written
--@ clock

local counter, window, outbox, dirty = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, feature = ARGV[3], ARGV[4]
local sealed, netted = tonumber(ARGV[9]), tonumber(ARGV[10])
local from, to = tonumber(ARGV[13]), tonumber(ARGV[14])

local r = call('HMGET', counter, 'ps', 'pe', 'x:' .. feature, 's:' .. feature, 'y:' .. feature, 'z:' .. feature)
local accrued, found = tonumber(r[3] or 0), {r[4] or '0', r[5] or '0', r[6] or '0'}
if r[1] ~= ARGV[5] or not call('ZSCORE', dirty, member) then return {0, now} end
for i = 1, 3 do
  if not string.match(found[i], '^%d+$') then return {-2, now} end
  if found[i] ~= ARGV[5 + i] then return {0, now} end
end
if not accrued then return {-2, now} end
if accrued < sealed then return {0, now} end

-- A key of another type ends the script here, while nothing is written.
call('HLEN', window)
call('ZCARD', outbox)

if to > from then
  call('HSET', window, 'org', ARGV[12], 'feature', feature, 'start', r[1], 'end', r[2], 'from', from, 'to', to,
    'last', tonumber(ARGV[15]), 'state', 'sealed', 'at', now)
  call('ZADD', outbox, now, ARGV[11])
end
call('HSET', counter, 's:' .. feature, sealed, 'z:' .. feature, netted)
if accrued == sealed then call('ZREM', dirty, member) end
return {1, now}
