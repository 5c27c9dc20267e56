-- Change a circuit if nobody else has; what was counted for the old one is forgotten.
--
-- KEYS[1] circuits  hash, KEYS[2] window  hash: see pulse.lua. KEYS[3] probes  hash: see probe.lua
-- ARGV[1] dependency, ARGV[2] the circuit as it was or "", ARGV[3] the circuit as it shall be
-- -> 1 if it was changed

if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], 86400)
redis.call('DEL', KEYS[2], KEYS[3])
return 1
