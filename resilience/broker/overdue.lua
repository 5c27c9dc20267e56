-- Claim messages whose worker was not heard of for too long, before they are given to others.
--
-- Who claims one has it for as long as a worker may be silent; then another may claim it.
--
-- KEYS[1] index    zset  delivery tags by the server's time at which they were last heard of
-- KEYS[2] unacked  hash  by delivery tag: [message, exchange, routing key]
-- ARGV[1] seconds that a worker may be silent, ARGV[2] how many at most, ARGV[3] seconds that one
-- may be silent that is never heard of, as it is kombu's own (see take.lua), ARGV[4] how many to look at
-- -> {score of the claims, tag, what is noted, tag, what is noted, …}

local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])
local latest = tonumber(now) - tonumber(ARGV[1])
local mute = tonumber(now) - tonumber(ARGV[3])
local tags = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', latest, 'LIMIT', 0, ARGV[4])
local claimed = { now }
for _, tag in ipairs(tags) do
  local noted = redis.call('HGET', KEYS[2], tag)
  if not noted then
    redis.call('ZREM', KEYS[1], tag)
  elseif string.sub(noted, -2) == ' ]' or tonumber(redis.call('ZSCORE', KEYS[1], tag)) <= mute then
    redis.call('ZREM', KEYS[1], tag) -- see renew.lua
    redis.call('ZADD', KEYS[1], now, tag)
    claimed[#claimed + 1] = tag
    claimed[#claimed + 1] = noted
  end
  if #claimed > 2 * ARGV[2] then break end
end
return claimed
