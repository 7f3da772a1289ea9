-- What is kept of an organisation's automatic top-ups, and its attempts of the last 31 days. The script ends here with
-- {-2, now} where a figure is no number, and by the store's own error where a key has another type.
local topup, recharging, charging = KEYS[10], KEYS[11], KEYS[12]
local FIGURES = {'package', 'per_day', 'per_month', 'cooldown', 'last', 'at'}

call('ZCARD', recharging)
call('ZCARD', charging)
local kept, tries, flat = {}, {}, call('HGETALL', topup)
for i = 1, #flat, 2 do
  local field, text = flat[i], flat[i + 1]
  if match(field, '^t|') then
    local at, amount = match(text, '^(%d+):(%d+)$')
    if not at then return {-2, now} end
    tries[#tries + 1] = {field = field, at = tonumber(at), amount = tonumber(amount)}
  else
    kept[field] = text
  end
end
for _, name in ipairs(FIGURES) do
  if kept[name] and not match(kept[name], '^%d+$') then return {-2, now} end
end
