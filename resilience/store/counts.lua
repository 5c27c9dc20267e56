-- Adds what a process has counted to the totals of the fleet, then runs the pulse in the same step.
--
-- The text of pulse.lua stands before this one, as the function `pulse`. Its keys and arguments come
-- first.
--
-- KEYS[5] counted    string  number of this process's last batch that was added
-- KEYS[6] totals     hash  series -> number, and "born" -> when the totals began
-- KEYS[7] answers    hash  series of answers -> number, and
--                          series of minutes -> "<minutes with a degraded answer>|<the last of them>"
-- KEYS[8] history    hash  minute, in seconds -> JSON of `answers` when it began
-- KEYS[9] exemplars  hash  series -> JSON of an exemplar
-- the last of ARGV: JSON {batch, counts, exemplars}; a number to add or a text to keep for each series
-- -> what the pulse returns, and "" if the batch has been added, else why not
--
-- A batch has a number, so that it is added once however often it is sent. A process sends its next
-- batch only when it knows that the last one was added.
--
-- There is one entry of the history per minute with answers, written before the first of them is
-- added. So the first entry at or after a moment shows what had been added by then. Of old entries
-- the first of each slot stays, which is exact at the beginning of the slot.

local DAY, HOUR, MINUTE = 86400, 3600, 60
local KEEP = 36 * DAY
local SLOTS = { { 66 * MINUTE, MINUTE }, { 6 * HOUR + 10 * MINUTE, 5 * MINUTE }, { 74 * HOUR, HOUR } }
local COUNTED_KEEP = HOUR

local batch = cjson.decode(table.remove(ARGV))
local now = tonumber(redis.call('TIME')[1])
local minute = now - now % MINUTE

local function slot_of(at)
  for _, slot in ipairs(SLOTS) do
    if minute - at <= slot[1] then return at - at % slot[2] end
  end
  return at - at % (6 * HOUR)
end

local function keep_history()
  if redis.call('HEXISTS', KEYS[8], minute) == 1 then return end
  local answers, seen = redis.call('HGETALL', KEYS[7]), {}
  for i = 1, #answers, 2 do seen[answers[i]] = answers[i + 1] end
  redis.call('HSET', KEYS[8], minute, #answers > 0 and cjson.encode(seen) or '{}')
  local times, old, slots = {}, {}, {}
  for _, text in ipairs(redis.call('HKEYS', KEYS[8])) do
    times[#times + 1] = #text < 16 and tonumber(string.match(text, '^%d+$')) or nil
  end
  table.sort(times)
  for _, at in ipairs(times) do
    local slot = slot_of(at)
    if slots[slot] or minute - at > KEEP then old[#old + 1] = at else slots[slot] = true end
  end
  if #old > 0 then redis.call('HDEL', KEYS[8], unpack(old, 1, math.min(#old, 1000))) end
  redis.call('EXPIRE', KEYS[8], KEEP)
end

-- Return the count that *text* stands for; 0 of what is none.
local function count_of(text)
  local number = tonumber(text or '0')
  return number and number >= 0 and number < 1e15 and number or 0
end

local function add(key, names)
  if #names == 0 then return end
  local sums = {}
  for i, old in ipairs(redis.call('HMGET', key, unpack(names))) do
    local sum = count_of(old) + batch.counts[names[i]]
    sums[2 * i - 1], sums[2 * i] = names[i], string.format('%.17g', sum)
  end
  redis.call('HSET', key, unpack(sums))
  redis.call('EXPIRE', key, KEEP)
end

local function add_minutes(answers)
  for _, answer in ipairs(answers) do
    local _, _, dependency, level = unpack(cjson.decode(answer))
    local name = cjson.encode({ 'minutes_below_full', dependency })
    local number, last = string.match(redis.call('HGET', KEYS[7], name) or '', '^(%d+)|(%d+)$')
    if level ~= 'FULL' and tonumber(last) ~= minute then
      redis.call('HSET', KEYS[7], name, string.format('%d|%d', count_of(number) + 1, minute))
    end
  end
end

local function count()
  -- No process is so far ahead of itself: then the number is not its own.
  local last = count_of(redis.call('GET', KEYS[5]))
  if last - 1000 < batch.batch and batch.batch <= last then return end
  -- A key of another type must fail here: after the first write the batch would be added in part.
  for i = 6, 9 do redis.call('HLEN', KEYS[i]) end
  redis.call('SET', KEYS[5], batch.batch, 'EX', COUNTED_KEEP)
  local others, answers = {}, {}
  for name in pairs(batch.counts) do
    local names = string.sub(name, 1, 10) == '["answers"' and answers or others
    names[#names + 1] = name
  end
  if #answers > 0 then keep_history() end
  -- A long value makes the server index a small hash, too; else it searches all fields for each.
  redis.call('HSETNX', KEYS[6], 'born', string.format('%-80d', now))
  add(KEYS[6], others)
  add(KEYS[7], answers)
  add_minutes(answers)
  for name, exemplar in pairs(batch.exemplars) do
    redis.call('HSET', KEYS[9], name, exemplar)
    redis.call('EXPIRE', KEYS[9], DAY)
  end
end

-- A key that holds another type than ours must not keep circuits from opening.
local counted, failure = pcall(count)
local reply = pulse()
reply[8] = counted and '' or (type(failure) == 'table' and failure.err or tostring(failure))
return reply
