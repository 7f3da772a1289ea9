#!lua flags=no-writes
-- read_credits: an organisation's credits as they belong together at one instant.
--
-- KEYS   pool, grants, then clock when ARGV[2] is given
-- ARGV   caller's clock ms, test clock offset ms or '', '1' where the grants that are over are wanted as well
-- RETURNS {now, the pool's fields and values, those of the grants, empty where not wanted}; {-1, now} a clock that does
--        not fit
--@ clock

return {now, call('HGETALL', KEYS[1]), ARGV[3] == '1' and call('HGETALL', KEYS[2]) or {}}
