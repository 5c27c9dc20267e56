-- One process tells what it has seen and learns what the fleet has agreed on.
--
-- KEYS[1]    circuits  hash  dependency -> "<generation>|<open until, ms>|<text>"
-- KEYS[2]    told      string  the process that has told last
-- KEYS[3]    flags     string  see flags.lua
-- KEYS[4…]   window    hash  one per piece of evidence, counts by second of server time
--                            g         generation that it counts for
--                            o:<s> f:<s> t:<s>   calls that ended well, failed, were slow
--                            r:<process>         last second in which it saw a bad call
--                            c         failures in a row
-- ARGV[1] process, ARGV[2] the version of the flags that it knows, "" if it wants none,
-- then eight values per piece of evidence: name, generation, window in seconds,
-- ok, failed, age of failed, slow, failures since the last ok
-- -> {seconds, microseconds, {name, circuit, …}, flags if they are others and "" if there are none,
--     {calls, failed, slow, reporters, in a row}, …}

local process = ARGV[1]
local time = redis.call('TIME')
local second = tonumber(time[1])
local day = 86400

local function add(window, field, count, age, length)
  if count > 0 and age < length then
    redis.call('HINCRBY', window, field .. ':' .. (second - age), count)
  end
end

local function sum(window, length)
  local oldest = second - length
  local total, reporters = { o = 0, f = 0, t = 0 }, 0
  local fields = redis.call('HGETALL', window)
  for i = 1, #fields, 2 do
    local kind, rest = string.match(fields[i], '^(%a):(.+)$')
    if kind then
      local at = tonumber(kind == 'r' and fields[i + 1] or rest)
      if at <= oldest then
        redis.call('HDEL', window, fields[i])
      elseif kind == 'r' then
        reporters = reporters + 1
      else
        total[kind] = total[kind] + tonumber(fields[i + 1])
      end
    end
  end
  local row = tonumber(redis.call('HGET', window, 'c') or 0)
  return { total.o + total.f, total.f, total.t, reporters, row }
end

-- Before all else: a store that takes nothing, as it is full or read-only, shall answer nothing
-- either. A process that it leaves alone would forget its own circuits at each answer.
redis.call('SET', KEYS[2], process, 'EX', day)

local windows = {}
for i = 4, #KEYS do
  local window, at = KEYS[i], (i - 4) * 8 + 2
  local name, generation, length = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  local ok, failed, failed_age = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local slow, tail = tonumber(ARGV[at + 7]), tonumber(ARGV[at + 8])
  local kept = redis.call('HGET', KEYS[1], name)
  local current = kept and string.match(kept, '^%d+') or '0'
  if generation == current then
    if redis.call('HGET', window, 'g') ~= current then
      redis.call('DEL', window)
      redis.call('HSET', window, 'g', current)
    end
    add(window, 'o', ok, 0, length)
    add(window, 'f', failed, failed_age, length)
    local slow_age = ok > 0 and 0 or failed_age
    add(window, 't', slow, slow_age, length)
    local bad_age = slow > 0 and slow_age or failed_age
    if failed + slow > 0 and bad_age < length then
      redis.call('HSET', window, 'r:' .. process, second - bad_age)
    end
    if ok > 0 then
      redis.call('HSET', window, 'c', tail)
    elseif failed > 0 then
      redis.call('HINCRBY', window, 'c', failed)
    end
    redis.call('EXPIRE', window, length + 1)
  end
  windows[#windows + 1] = sum(window, length)
end

local circuits = redis.call('HGETALL', KEYS[1])
if #circuits > 0 then redis.call('EXPIRE', KEYS[1], day) end
local flags = false
if ARGV[2] ~= '' then
  flags = redis.pcall('GET', KEYS[3]) or ''
  if type(flags) == 'table' then flags = '?' end -- no string: the key is in other hands
  if string.match(flags, '^%d+') == ARGV[2] then flags = false end
end
return { time[1], time[2], circuits, flags, unpack(windows) }
