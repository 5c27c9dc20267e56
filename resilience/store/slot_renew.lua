-- Renew the leases of one process. An expired lease is taken again if a slot is free, as its call
-- still runs.
--
-- KEYS    held  zset  see slot_take.lua; one key for each lease
-- ARGV[1] lease in ms, then for each lease: owner, number of slots
-- -> for each lease: 1 renewed, 2 taken again, 0 expired and no slot is free

local lease = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Tell whether the server refused a command, as a key of another type holds nothing of ours.
local function refused(answer) return type(answer) == 'table' and answer.err end

local answers = {}
for i, held in ipairs(KEYS) do
  local owner, slots = ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  if refused(redis.pcall('ZREMRANGEBYSCORE', held, '-inf', now)) then redis.call('DEL', held) end
  if redis.call('ZSCORE', held, owner) then
    answers[i] = 1
  else
    answers[i] = redis.call('ZCARD', held) < slots and 2 or 0
  end
  if answers[i] > 0 then
    redis.call('ZADD', held, now + lease, owner)
    redis.call('PEXPIRE', held, 2 * lease)
  end
end
return answers
