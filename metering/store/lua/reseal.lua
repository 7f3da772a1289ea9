#!lua
-- reseal: put values of a hash in the place of others, of each only while it is as it was read.
--
-- KEYS   hash
-- ARGV   for each value its field, the text as it was read, and the text to be
-- RETURNS how many were replaced
local call = redis.call

local replaced = 0
for i = 1, #ARGV, 3 do
  if call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    replaced = replaced + 1
  end
end
return replaced
