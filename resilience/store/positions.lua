-- Share the positions of a primary over time, from which others compute how far a replica lags.
--
-- KEYS[1] samples  zset  "<fleet time> <JSON of a position>" -> that time in seconds; a key per source
-- KEYS[2] sources  zset  source -> fleet time of its newest sample, for commands that list sources
-- KEYS[3] orders   hash  source -> JSON of an operator's order; this script does not parse it
-- ARGV[1] source, ARGV[2] fleet time of a new sample or "", ARGV[3] JSON of its position
-- ARGV[4] fleet time; only later samples are returned
-- -> {seconds and microseconds of fleet time, order or "", {sample, …} oldest first}

local APART, KEEP, MOST, MOST_SOURCES = 0.5, 300, 600, 100

for i, kind in ipairs({'zset', 'zset', 'hash'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', KEYS[i]) end
end
local samples, sources, source, at = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

-- If the server's clock was set back, there are samples from the future. A replica would seem less
-- far behind by them than it is.
redis.call('ZREMRANGEBYSCORE', samples, '-inf', string.format('%.6f', now - KEEP))
redis.call('ZREMRANGEBYSCORE', samples, string.format('(%.6f', now), '+inf')
if at ~= '' and tonumber(at) <= now and tonumber(at) > now - KEEP then
  local newest = redis.call('ZRANGE', samples, -1, -1, 'WITHSCORES')[2]
  if not newest or tonumber(newest) < at - APART then
    redis.call('ZADD', samples, at, at .. ' ' .. ARGV[3])
    redis.call('ZREMRANGEBYRANK', samples, 0, -1 - MOST)
    redis.call('EXPIRE', samples, KEEP)
    redis.call('ZADD', sources, at, source)
    redis.call('ZREMRANGEBYRANK', sources, 0, -1 - MOST_SOURCES)
    redis.call('EXPIRE', sources, 86400)
  end
end
local order = redis.call('HGET', KEYS[3], source) or ''
return {time[1], time[2], order, redis.call('ZRANGEBYSCORE', samples, '(' .. ARGV[4], '+inf')}
