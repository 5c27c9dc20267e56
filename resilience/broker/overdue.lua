-- Claim messages of dead workers, before they are given to others. A worker is dead if it has not
-- renewed a message for too long, or if its connection was closed and it has noted no new one.
--
-- A claim lasts as long as a worker may be silent; then another worker may claim the message.
--
-- KEYS[1] index    zset  delivery tag -> server time in seconds of its last renewal
-- KEYS[2] unacked  hash  delivery tag -> [message, exchange, routing key]
-- KEYS[3] holders  zset  worker -> id of its heartbeat's connection
-- ARGV[1] seconds that a worker may be silent, ARGV[2] how many messages to claim at most,
-- ARGV[3] seconds that a worker with kombu's own transport may be silent: it never renews (see
-- take.lua), ARGV[4] how many messages to look at at most,
-- ARGV[5] seconds for which a worker whose connection was closed must have been silent,
-- ARGV[6…] workers whose connection was closed, each with the connection's id
-- -> {score of the claims, 1 if any message is held, tag, what is noted, tag, what is noted, …}

local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])
local silent = tonumber(now) - tonumber(ARGV[1])
local mute = tonumber(now) - tonumber(ARGV[3])

-- Workers that have noted no new connection, and a text that only what they hold contains.
local gone, marks = {}, {}
for i = 6, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[3], ARGV[i]) == ARGV[i + 1] then
    gone[#gone + 1] = ARGV[i]
    marks[#marks + 1] = ',0e' .. string.match(ARGV[i], '%d+$') .. ',"'
  end
end
local latest = silent
if #gone > 0 then latest = math.max(silent, tonumber(now) - tonumber(ARGV[5])) end

local function is_dead(noted, score)
  if score <= mute then return true end
  if string.sub(noted, -2) ~= ' ]' then return false end
  if score <= silent then return true end
  for _, mark in ipairs(marks) do
    if string.find(noted, mark, 1, true) then return true end
  end
  return false
end

local oldest = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local claimed = { now, #oldest > 0 and 1 or 0 }
local tags = {}
if #oldest > 0 and tonumber(oldest[2]) <= latest then
  tags = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', latest, 'WITHSCORES', 'LIMIT', 0, ARGV[4])
end
for i = 1, #tags, 2 do
  local tag = tags[i]
  local noted = redis.call('HGET', KEYS[2], tag)
  if not noted then
    redis.call('ZREM', KEYS[1], tag)
  elseif is_dead(noted, tonumber(tags[i + 1])) then
    redis.call('ZREM', KEYS[1], tag) -- see renew.lua
    redis.call('ZADD', KEYS[1], now, tag)
    claimed[#claimed + 1] = tag
    claimed[#claimed + 1] = noted
  end
  if #claimed > 2 * ARGV[2] then return claimed end -- there may be more
end
if #gone > 0 and #tags < 2 * ARGV[4] then redis.call('ZREM', KEYS[3], unpack(gone)) end
return claimed
