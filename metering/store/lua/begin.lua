#!lua
-- begin: start a request that carries an Idempotency-Key, or tell what became of the one before it.
--
-- KEYS   kept
-- ARGV   token of this try, fingerprint of the request, lease ms: a try that does not finish ends by itself then
-- RETURNS {1} begun, also when repeated: run the request; {2, answer} it has run, and this was its answer;
--        {3} the key was used for another request; {4, ms} another try runs it, for so long at most
local call = redis.call
local kept, token, request, lease_ms = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])

local stored = call('HMGET', kept, 'token', 'request', 'answer')
if stored[1] then
  if stored[2] ~= request then return {3} end
  if stored[3] then return {2, stored[3]} end
  if stored[1] == token then
    call('PEXPIRE', kept, lease_ms) -- the reply to the first was lost: the run begins now
    return {1}
  end
  return {4, call('PTTL', kept)}
end

call('HSET', kept, 'token', token, 'request', request)
call('PEXPIRE', kept, lease_ms)
return {1}
