-- A change of plan, as the counters see it. Units so far: the metrics show them under the plan they were used under, so
-- they move from the new plan to the old. They stay text: units of all closed periods may pass what a Lua number holds.

-- What moves when the plan changes, as {feature, units}; nil where a figure is no number.
local function units_to_move(record, before, after)
  local moved = {}
  if not before or before == after then return moved end
  local flat = call('HGETALL', record)
  for i = 1, #flat, 2 do
    local kind, feature = string.match(flat[i], '^([ubp]):(.+)$')
    if kind and not string.match(flat[i + 1], '^%-?%d+$') then return nil end
    if kind and kind ~= 'p' and flat[i + 1] ~= '0' then moved[#moved + 1] = {feature, flat[i + 1]} end
  end
  return moved
end

local function move_units(record, before, after, moved)
  for i = 1, #moved do
    call('HINCRBY', record, 'p:' .. before .. ':' .. moved[i][1], moved[i][2])
    call('HINCRBY', record, 'p:' .. after .. ':' .. moved[i][1], '-' .. moved[i][2])
  end
end
