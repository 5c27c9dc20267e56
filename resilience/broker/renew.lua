-- Say that the worker that holds these messages is alive.
--
-- KEYS[1] index  zset  delivery tags by the server's time at which they were last heard of
-- ARGV[1…] delivery tags
-- -> the server's time in microseconds, and the tags that are not there any more
--
-- A server that is out of memory refuses ZADD, but not behind a command that frees some.

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
