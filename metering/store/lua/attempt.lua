#!lua
-- attempt: begin to send a window: noted before the first byte goes out, and by one worker alone for the time of a lease.
--
-- KEYS   window, outbox, record, archive of the window's period, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', identifier, lease ms, ms after the first attempt within which
--        Stripe still knows the identifier; then what holds if this is a first attempt: customer, sink, time at
--        Stripe ms, amount ('' none), instant of the period's invoice as the caller saw it ('' none)
-- RETURNS {1, attempts, now} begun; {0, 0, now} it is gone, settled or given up; {2, due, now} its turn is later; {3, 0, now} the
--        period was invoiced, or somebody began with another customer: look again; {4, 0, now} it may have arrived, and
--        Stripe would not know; {-1, now} a clock that does not fit: nothing written by any but the first
--@ clock

local window, outbox, record, archive = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, lease_ms, known_ms = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

-- What was given up with its organisation is never billed, whoever was on the way to it.
if call('HEXISTS', record, 'erased') == 1 then return {0, 0, now} end
local row = call('HMGET', window, 'state', 'start', 'first', 'customer', 'sink', 'attempts')
if row[1] ~= 'sealed' and row[1] ~= 'inflight' then return {0, 0, now} end
local due = call('ZSCORE', outbox, id)
if not due then return {0, 0, now} end
if tonumber(due) > now then return {2, tonumber(due), now} end
local counter = call('HGET', record, 'ps') == row[2] and record or archive
local invoiced = call('HGET', counter, 'iv') or ''
if invoiced ~= ARGV[10] then return {3, 0, now} end
if row[3] then
  if row[4] ~= ARGV[6] then return {3, 0, now} end
  if row[5] == 'meter' and (invoiced ~= '' or now - tonumber(row[3]) >= known_ms) then return {4, 0, now} end
end

local attempts = tonumber(row[6] or 0) + 1
if not row[3] then
  call('HSET', window, 'first', now, 'customer', ARGV[6], 'sink', ARGV[7], 'stamp', tonumber(ARGV[8]), 'amount', ARGV[9])
end
call('HSET', window, 'state', 'inflight', 'attempts', attempts, 'tried', now)
call('ZADD', outbox, now + lease_ms, id)
return {1, attempts, now}
