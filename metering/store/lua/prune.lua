#!lua
-- prune: remove settled windows of a final period from the front of a counter's chain, and keep how far, in one step.
--
-- KEYS   archive of the period, settled, the windows as they follow each other, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', org, feature, period start ms, ms that a window is kept after
--        its way ended, then the windows' identifiers
-- RETURNS {1, n, now} the first n are removed, and the one behind them is not the next, not settled or too young; {0, 0, now}
--        the period is not final; {-1, now} a clock that does not fit, {-2, now} a figure that is no number or cannot be:
--        nothing written
--@ clock

local archive, settled = KEYS[1], KEYS[2]
local org, feature, start, oldest_kept = ARGV[3], ARGV[4], ARGV[5], now - tonumber(ARGV[6])
local DONE = {delivered = true, written_off = true}

local r = call('HMGET', archive, 'ps', 'final', 'g:' .. feature, 's:' .. feature, 'z:' .. feature, 'd:' .. feature,
  'q:' .. feature)
if r[1] ~= start or not r[2] then return {0, 0, now} end
local figures = {}
for i = 3, 7 do
  if not string.match(r[i] or '0', '^%d+$') then return {-2, now} end
  figures[i - 2] = tonumber(r[i] or 0)
end
local mark, sealed, netted, delivered, let_go = unpack(figures)

-- The mark is where the next window begins: a window that is not there, or stands behind a dead one, stays.
local rows, names = {}, {}
for i = 1, #ARGV - 6 do
  local w = call('HMGET', KEYS[2 + i], 'org', 'feature', 'start', 'state', 'from', 'to', 'settled')
  if w[1] ~= org or w[2] ~= feature or w[3] ~= start or not DONE[w[4]] then break end
  local from, to, ended = tonumber(w[5]), tonumber(w[6]), tonumber(w[7])
  if not (from and to and ended) then return {-2, now} end
  if from ~= mark or ended > oldest_kept then break end
  mark, rows[i], names[i] = to, KEYS[2 + i], ARGV[6 + i]
end
if #rows == 0 then return {1, 0, now} end
if mark > sealed - netted or mark > delivered + let_go then return {-2, now} end

-- A key of another type ends the script here, while nothing is written.
call('ZCARD', settled)

call('HSET', archive, 'g:' .. feature, mark)
call('UNLINK', unpack(rows))
call('ZREM', settled, unpack(names))
return {1, #rows, now}
