#!lua
-- finalize: a closed period is final: it is invoiced, and every unit of its overage is delivered or written off.
--
-- KEYS   the period's archive
-- ARGV   instant in ms
-- RETURNS 1 final now; 0 it was, -1 not yet, -2 a figure that is no number: nothing written
local call, match = redis.call, string.match

local flat, period = call('HGETALL', KEYS[1]), {}
for i = 1, #flat, 2 do period[flat[i]] = flat[i + 1] end
if period.final then return 0 end
if not period.iv then return -1 end
for field, accrued in pairs(period) do
  local feature = match(field, '^x:(.+)$')
  if feature then
    local f = {accrued}
    for i, kind in ipairs({'s:', 'z:', 'd:', 'q:'}) do f[i + 1] = period[kind .. feature] or '0' end
    for i = 1, 5 do
      if not match(f[i], '^%d+$') then return -2 end
      f[i] = tonumber(f[i])
    end
    if f[1] ~= f[2] or f[2] - f[3] ~= f[4] + f[5] then return -1 end
  end
end
call('HSET', KEYS[1], 'final', tonumber(ARGV[1]))
return 1
