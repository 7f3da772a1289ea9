#!lua
-- lapse: write down what expired of an organisation's grants, what went into a second span, and when the next one ends.
--
-- KEYS   record, trail, totals, pool, burned, ledger, grants, lapsing, topups, crossings, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', the organisation as shared streams name it, period start ms
-- RETURNS {1, balance}; {-1, now} a clock that does not fit, {-2, now} a figure that is no number: nothing written
--@ clock

local read, match, format = redis.pcall, string.match, string.format
--@ credits
--@ ledger

keys.crossings = KEYS[10]
call('XLEN', keys.crossings)

write_burns(pool, keys, org, '', ARGV[3], tonumber(ARGV[4]))
return {1, balance_of(pool)}
