-- Give a slot back or leave the line, and wake the owners who are next.
--
-- KEYS[1] held, KEYS[2] line, KEYS[3] alive  zsets  see slot_take.lua
-- KEYS[4] wake  prefix of lists, <prefix><owner>: an element wakes that owner, who then tries again
-- ARGV[1] owner, ARGV[2] number of slots, ARGV[3] life of such a list in ms
-- -> 1 if the lease was still held, else 0

local held, line, owner = KEYS[1], KEYS[2], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Tell whether the server refused a command, as a key of another type holds nothing of ours.
local function refused(answer) return type(answer) == 'table' and answer.err end

if refused(redis.pcall('ZREMRANGEBYSCORE', held, '-inf', now)) then redis.call('DEL', held) end
local was_held = redis.call('ZREM', held, owner)
if redis.call('EXISTS', line) == 0 then return was_held end
if refused(redis.pcall('ZREM', line, owner)) or refused(redis.pcall('ZREM', KEYS[3], owner)) then
  redis.call('DEL', line, KEYS[3])
end
redis.call('DEL', KEYS[4] .. owner)
local free = ARGV[2] - redis.call('ZCARD', held)
if free > 0 then
  for _, next_one in ipairs(redis.call('ZRANGE', line, 0, free - 1)) do
    local wake = KEYS[4] .. next_one
    redis.call('DEL', wake)
    redis.call('LPUSH', wake, 1)
    redis.call('PEXPIRE', wake, ARGV[3])
  end
end
return was_held
