#!lua flags=no-writes
-- read_shared: what the metrics want of one partition, as it stands at one instant.
--
-- KEYS   totals, plans, orgs, top, queue, dead, inbox, dead_inbox, dirty, outbox, dead_windows, unbilled, frozen
-- ARGV   how many of the highest organisations, how many of the windows whose turn is next
-- RETURNS what each question gives, in this order; for a key of another type the error stands in its place
local ask = redis.pcall

local highest, windows = tonumber(ARGV[1]), tonumber(ARGV[2])
local queued, inbox = ask('XLEN', KEYS[5]), ask('XLEN', KEYS[7])
local dirty, outbox = ask('ZCARD', KEYS[9]), ask('ZCARD', KEYS[10])
return {
  ask('HGETALL', KEYS[1]), ask('HGETALL', KEYS[2]), ask('ZCARD', KEYS[3]),
  ask('ZREVRANGE', KEYS[4], 0, highest - 1, 'WITHSCORES'),
  queued, queued == 0 and {} or ask('XRANGE', KEYS[5], '-', '+', 'COUNT', 1), ask('XLEN', KEYS[6]),
  inbox, inbox == 0 and {} or ask('XRANGE', KEYS[7], '-', '+', 'COUNT', 1), ask('XLEN', KEYS[8]),
  dirty, dirty == 0 and {} or ask('ZRANGE', KEYS[9], 0, 0, 'WITHSCORES'),
  outbox, outbox == 0 and {} or ask('ZRANGE', KEYS[10], 0, windows - 1),
  ask('ZCARD', KEYS[11]), ask('ZCARD', KEYS[12]), ask('ZCARD', KEYS[13]),
}
