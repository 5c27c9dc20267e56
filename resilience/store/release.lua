-- Return how many jobs of one dependency may be released now.
--
-- KEYS[1]  flow  hash  counts by second <s> of server time, and the state of the circuit:
--                      c:<s>   jobs that workers took
--                      r:<s>   those among them that had run before
--                      a:<s>   jobs released within the share of retries
--                      g:<s>   jobs released without such a limit
--                      open    set while the circuit is not closed
--                      closed  server time in ms at which it closed; removed when the ramp ends
-- ARGV[1] jobs taken since the last call, [2] those among them that had run before,
-- [3] how many jobs are due, [4] most retries per job, less than 0 for no limit,
-- [5] jobs released per second whatever the share, [6] 1 if the circuit is closed,
-- [7] factor per second of the ramp, [8] window in seconds
-- -> how many may be released

local flow = KEYS[1]
if redis.call('TYPE', flow).ok ~= 'hash' then redis.call('DEL', flow) end
local wanted, share, least = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local factor, window = tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000 + math.floor(time[2] / 1000)

local function count(kind, jobs)
  local field = kind .. ':' .. second
  if jobs > 0 and type(redis.pcall('HINCRBY', flow, field, jobs)) == 'table' then
    redis.call('HSET', flow, field, jobs) -- there was no number
  end
end
count('c', tonumber(ARGV[1]))
count('r', tonumber(ARGV[2]))

local total = { c = 0, r = 0, a = 0, g = 0 }
local now_again, this_second, open, closed = 0, 0, false, nil
local fields = redis.call('HGETALL', flow)
for i = 1, #fields, 2 do
  local kind, at = string.match(fields[i], '^([crag]):(%d+)$')
  local number = #fields[i + 1] < 16 and tonumber(string.match(fields[i + 1], '^%d+$'))
  if kind and number and tonumber(at) > second - window and tonumber(at) <= second + window then
    total[kind] = total[kind] + number
    if tonumber(at) == second then
      if kind == 'a' then now_again = number end
      if kind == 'a' or kind == 'g' then this_second = this_second + number end
    end
  elseif fields[i] == 'open' then
    open = true
  elseif fields[i] == 'closed' and number and number <= now + 1000 * window then
    closed = number
  else -- too old, or of the future, or not ours
    redis.call('HDEL', flow, fields[i])
  end
end

if ARGV[6] ~= '1' then
  redis.call('HSET', flow, 'open', 1)
  redis.call('HDEL', flow, 'closed')
  closed = now -- a half-open circuit gets the rate at which the ramp begins
elseif open and wanted > 0 then
  redis.call('HDEL', flow, 'open')
  redis.call('HSET', flow, 'closed', now)
  closed = now
end

local most = wanted
if share >= 0 then
  -- A released job counts at once, even while it waits in its queue.
  local spent = math.max(total.r, total.a)
  most = math.max(least - now_again, math.floor(share * total.c) - spent)
end
if closed then
  local rate = least * factor ^ ((now - closed) / 1000)
  if rate > 100000 then redis.call('HDEL', flow, 'closed') end
  most = math.min(most, math.ceil(rate) - this_second)
end
local granted = math.max(0, math.min(wanted, most))
count(share >= 0 and 'a' or 'g', granted)
redis.call('EXPIRE', flow, 3600)
return granted
