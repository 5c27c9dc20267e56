-- Replace a circuit, unless another process has replaced it meanwhile; drop its probes.
--
-- KEYS[1] circuits  hash  see pulse.lua
-- KEYS[2] probes    hash  see probe.lua
-- KEYS[3] history   list  what became of the circuit, newest first: JSON, behind "~" if it opened
--                         again without having closed
-- ARGV[1] dependency, ARGV[2] the circuit that the caller knows or "", ARGV[3] the new circuit,
-- ARGV[4] what became of it or ""
-- -> 1 if it was replaced, else 0

local kept = redis.pcall('HGET', KEYS[1], ARGV[1]) or ''
local misplaced = type(kept) == 'table' and string.find(kept.err, 'WRONGTYPE', 1, true)
if (misplaced and '' or kept) ~= ARGV[2] then return 0 end
if misplaced then redis.call('DEL', KEYS[1]) end -- there are no circuits, as in pulse.lua
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], 86400)
redis.call('DEL', KEYS[2])
if ARGV[4] ~= '' then
  -- pcall: a history that cannot be kept, as its key is another program's, keeps no circuit shut.
  local last = redis.pcall('LINDEX', KEYS[3], 0)
  if type(last) == 'string' and string.sub(last, 1, 1) == '~' and string.sub(ARGV[4], 1, 1) == '~' then
    redis.pcall('LSET', KEYS[3], 0, ARGV[4])
  else
    redis.pcall('LPUSH', KEYS[3], ARGV[4])
    redis.pcall('LTRIM', KEYS[3], 0, 49)
  end
  redis.pcall('EXPIRE', KEYS[3], 604800)
end
return 1
