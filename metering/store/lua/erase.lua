#!lua
-- erase: end an organisation for good, in one step: its record becomes the mark of an erased one, which nobody can count
-- on or make anew; its units stay in the totals, of nobody; its profile goes, and with it the data key that opens what
-- shared streams hold of it.
--
-- KEYS   record, profile, totals, erased, erasing, plans, dirty, unbilled, charging, then the lists that name the
--        organisation, then its archives, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', expected claim, '1' where overage that Stripe does not have is
--        given up, how many lists; then the mark's fields and values
-- RETURNS {1, now} erased; {2, now} it was before; {0, now} the claim is another one, or there is no organisation;
--        {3, unsealed, waiting} so many units of overage are not at Stripe; {4} a top-up is under way; {-1, now} a clock that
--        does not fit, {-2, now} a figure that is no number: nothing written
--@ clock

local match, format = string.match, string.format
local record, profile, totals, erased, erasing = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local plans, dirty, unbilled, charging = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local org = string.sub(record, string.find(record, ':o:', 1, true) + 3)
local lists = tonumber(ARGV[5])
local archives0, archives_end = 10 + lists, ARGV[2] == '' and #KEYS or #KEYS - 1

local function hash(key)
  local flat, found = call('HGETALL', key), {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

local kept = hash(record)
if kept.erased then return {2, now} end
if not kept.k or kept.k ~= ARGV[3] then return {0, now} end
if call('ZSCORE', charging, org) then return {4} end
local billed = call('HEXISTS', profile, 'stripe_customer') == 1

-- Of one period: units that nobody sealed, which only a customer would have to pay, and units on their way.
local unsealed, waiting, members, corrupt = 0, 0, {}, false
local function look(period, suffix)
  for field, text in pairs(period) do
    local feature = match(field, '^x:(.+)$')
    if feature then
      local f = {tonumber(text)}
      for i, kind in ipairs({'s:', 'z:', 'd:', 'q:'}) do f[i + 1] = tonumber(period[kind .. feature] or 0) end
      if #f < 5 then corrupt = true return end
      if billed then unsealed = unsealed + f[1] - f[2] end
      waiting = waiting + f[2] - f[3] - f[4] - f[5]
      members[#members + 1] = org .. '|' .. feature .. suffix
    end
  end
end
look(kept, '')
for i = archives0, archives_end do look(hash(KEYS[i]), '|' .. match(KEYS[i], ':(-?%d+)$')) end

-- Units ever by plan and feature, and those that corrections took out: as the totals have them.
local units, taken = {}, {}
local function add(sums, name, number) sums[name] = (sums[name] or 0) + number end
for field, text in pairs(kept) do
  local kind, name = match(field, '^([ubp]):(.+)$')
  if kind then
    local number = tonumber(text)
    if not number then return {-2, now} end
    add(units, kind == 'p' and name or kept.plan .. ':' .. name, number)
    if kind == 'p' then add(taken, match(name, ':(.+)$'), number) end
  end
end
if corrupt then return {-2, now} end
if unsealed + waiting > 0 and ARGV[4] ~= '1' then return {3, unsealed, waiting} end

-- A key of another type ends the script here, while nothing is written.
call('HLEN', totals)
call('HLEN', plans)
for i = 4, archives0 - 1 do
  if i ~= 6 then call('ZCARD', KEYS[i]) end
end

-- So does a sum that is no number: what is taken away cannot be put back.
local function wrong(key, field)
  local sum = call('HGET', key, field)
  return sum and not match(sum, '^-?%d+$')
end
local spoilt = wrong(plans, kept.plan) or wrong(totals, 'e:org_erased')
for name in pairs(units) do spoilt = spoilt or wrong(totals, 'g:' .. name) end
for name in pairs(taken) do spoilt = spoilt or wrong(totals, 'o:' .. name) end
if spoilt then return {-2, now} end

call('DEL', record, profile)
call('HSET', record, 'k', 'erased', 'erased', now, 'given_up', format('%.0f', unsealed + waiting), unpack(ARGV, 6))
call('ZADD', erased, now, org)
call('ZADD', erasing, now, org)
call('HINCRBY', plans, kept.plan, -1)
for i = 10, archives0 - 1 do call('ZREM', KEYS[i], org) end
for _, member in ipairs(members) do
  call('ZREM', dirty, member)
  call('ZREM', unbilled, member)
end
for name, number in pairs(units) do
  if number ~= 0 then call('HINCRBY', totals, 'g:' .. name, format('%.0f', number)) end
end
for name, number in pairs(taken) do
  if number ~= 0 then call('HINCRBY', totals, 'o:' .. name, format('%.0f', number)) end
end
call('HINCRBY', totals, 'e:org_erased', 1)
return {1, now}
