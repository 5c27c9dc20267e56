-- Replace a circuit, unless another process has replaced it meanwhile; drop its probes.
--
-- KEYS[1] circuits  hash  see pulse.lua
-- KEYS[2] probes    hash  see probe.lua
-- ARGV[1] dependency, ARGV[2] the circuit that the caller knows or "", ARGV[3] the new circuit
-- -> 1 if it was replaced, else 0

if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], 86400)
redis.call('DEL', KEYS[2])
return 1
