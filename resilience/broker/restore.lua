-- Give a message that was taken back to its queue.
--
-- KEYS[1] unacked  hash  by delivery tag: what workers hold
-- KEYS[2] index    zset  delivery tags by the server's time at which they were last heard of
-- KEYS[3] list     messages as JSON; workers take from its end
-- ARGV[1] delivery tag, ARGV[2] message, ARGV[3] 'first' or 'last' in its queue,
-- ARGV[4] score of the claim: if its worker was heard of since, it keeps it; '' if it is the worker
-- -> 1 if it was given back

local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
if ARGV[4] ~= '' and (not score or tonumber(score) ~= tonumber(ARGV[4])) then return 0 end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call(ARGV[3] == 'first' and 'RPUSH' or 'LPUSH', KEYS[3], ARGV[2])
return 1
