-- Take a slot of a dependency, or wait in line for one.
--
-- KEYS[1] held   zset  owner -> server time in ms at which its lease ends
-- KEYS[2] line   zset  owner -> server time in µs at which it joined the line
-- KEYS[3] alive  zset  owner -> server time in ms until which its place in line is kept
-- ARGV[1] owner, ARGV[2] number of slots, ARGV[3] lease in ms, ARGV[4] ms to keep a place in line
-- -> -1 if a slot was granted, else ms until the first lease ends unless it is renewed

local held, line, alive, owner = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local slots, lease, keep = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Tell whether the server refused a command, as a key of another type holds nothing of ours.
local function refused(answer) return type(answer) == 'table' and answer.err end

if refused(redis.pcall('ZREMRANGEBYSCORE', held, '-inf', now)) then redis.call('DEL', held) end
local queued, ahead = redis.call('EXISTS', line) == 1, 0
if queued and (refused(redis.pcall('ZCARD', line)) or refused(redis.pcall('ZCARD', alive))) then
  queued = redis.call('DEL', line, alive) == 0
end
if queued then
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', alive, '-inf', now)) do
    redis.call('ZREM', line, gone)
  end
  redis.call('ZREMRANGEBYSCORE', alive, '-inf', now)
  ahead = redis.call('ZRANK', line, owner) or redis.call('ZCARD', line)
end
if ahead < slots - redis.call('ZCARD', held) or redis.call('ZSCORE', held, owner) then
  redis.call('ZADD', held, now + lease, owner)
  redis.call('PEXPIRE', held, 2 * lease)
  if queued then
    redis.call('ZREM', line, owner)
    redis.call('ZREM', alive, owner)
  end
  return -1
end
-- What ends later than any lease, or is in line without a place, was not written by this script.
local far, first_in_line = now + 10 * math.max(lease, keep), redis.call('ZRANGE', line, 0, 0)[1]
redis.call('ZREMRANGEBYSCORE', held, far, '+inf')
if refused(redis.pcall('ZREMRANGEBYSCORE', alive, far, '+inf')) then redis.call('DEL', alive) end
if first_in_line and not redis.call('ZSCORE', alive, first_in_line) then
  redis.call('ZREM', line, first_in_line)
end
redis.call('ZADD', line, 'NX', string.format('%.0f', time[1] * 1000000 + time[2]), owner)
redis.call('ZADD', alive, now + keep, owner)
redis.call('PEXPIRE', line, 2 * keep)
redis.call('PEXPIRE', alive, 2 * keep)
local first = redis.call('ZRANGE', held, 0, 0, 'WITHSCORES')
return first[2] and math.max(1, math.min(2 * lease, first[2] - now)) or 1
