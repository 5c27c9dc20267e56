-- Put a message that was taken back into its queue.
--
-- KEYS[1] unacked  hash  delivery tag -> what is noted of the message
-- KEYS[2] index    zset  delivery tag -> server time in seconds of its last renewal
-- KEYS[3] list     messages as JSON; workers take from its end
-- ARGV[1] delivery tag, ARGV[2] message, ARGV[3] 'first' or 'last' in its queue,
-- ARGV[4] score of the claim, '' if the caller holds the message itself. A message that its worker
-- has renewed since the claim stays with that worker
-- -> 1 if it was put back, else 0

local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if ARGV[4] ~= '' and (not score or tonumber(score) ~= tonumber(ARGV[4])) then return 0 end
local noted = redis.call('HGET', KEYS[1], ARGV[1])
if not noted then return 0 end
-- First the command that frees memory: after it, a server without memory accepts the others, too.
redis.call('HDEL', KEYS[1], ARGV[1])
local pushed = redis.pcall(ARGV[3] == 'first' and 'RPUSH' or 'LPUSH', KEYS[3], ARGV[2])
if type(pushed) == 'table' and pushed.err then -- the user may not, or the key is no list
  redis.call('HSET', KEYS[1], ARGV[1], noted)
  return pushed
end
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
