-- Renew messages: the worker that holds them is alive.
--
-- KEYS[1] index  zset  delivery tag -> server time in seconds of its last renewal
-- ARGV[1…] delivery tags
-- -> {server time in microseconds, tag, …} with the tags that are no longer in the index
--
-- A server that is out of memory refuses ZADD, but not after a command that frees memory: hence ZREM.

local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])
local gone = { time[1] * 1000000 + time[2] }
for _, tag in ipairs(ARGV) do
  if redis.call('ZREM', KEYS[1], tag) == 1 then
    redis.call('ZADD', KEYS[1], now, tag)
  else
    gone[#gone + 1] = tag
  end
end
return gone
