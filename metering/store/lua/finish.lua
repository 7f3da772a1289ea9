#!lua
-- finish: keep the answer of a request that was begun, for its repeats; or forget the request, so that a repeat runs it.
--
-- KEYS   kept
-- ARGV   token of the try, fingerprint of the request, answer ('' = forget the request), ms to keep it
-- RETURNS 1 done, also when repeated; 0 another try has begun meanwhile (the lease ran out): nothing written
local call = redis.call
local kept, token, request, answer, keep_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local stored = call('HMGET', kept, 'token', 'answer')
if stored[1] and stored[1] ~= token then return 0 end
if stored[2] then return 1 end

if answer == '' then
  call('DEL', kept)
  return 1
end
-- A lease that ran out with nobody else at it: the answer is as good as ever.
call('HSET', kept, 'token', token, 'request', request, 'answer', answer)
call('PEXPIRE', kept, keep_ms)
return 1
