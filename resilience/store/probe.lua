-- Take a permit to probe a half-open circuit, or give one back.
--
-- KEYS[1] circuits  hash  see pulse.lua
-- KEYS[2] probes    hash  g           generation of the circuit
--                         ok, failed  number of probes with this result
--                         l:<owner>   server time in ms at which the lease of a permit ends
-- ARGV[1] dependency, ARGV[2] generation, ARGV[3] owner,
-- ARGV[4] take | ok | failed | neutral, and for take: ARGV[5] number of permits, ARGV[6] lease in ms
-- -> {1 if granted, 1 if it is the first probe, ok, failed}; nil if the circuit has moved on, may
--    not be probed yet, or the permit was no longer held

local probes, generation, owner, operation = KEYS[2], ARGV[2], 'l:' .. ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Return the whole number that *text* stands for; nil of what is none.
local function whole(text)
  return text and #text < 16 and tonumber(string.match(text, '^%d+$')) or nil
end

-- A key of another type is empty.
local kept = redis.pcall('HGET', KEYS[1], ARGV[1])
local current, due = string.match(type(kept) == 'string' and kept or '0|0|', '^(%d+)|(%d+)|')
if current ~= generation or now < tonumber(due) then return nil end

local first = 0
if redis.pcall('HGET', probes, 'g') ~= generation then
  -- A probe that ends now belonged to another circuit, for instance one from before a flush.
  if operation ~= 'take' then return nil end
  redis.call('DEL', probes)
  redis.call('HSET', probes, 'g', generation)
  redis.call('EXPIRE', probes, 86400)
  first = 1
end

local function ended(how)
  local number = whole(redis.call('HGET', probes, how) or '0')
  if not number then redis.call('HDEL', probes, how) end
  return number or 0
end

if operation == 'take' then
  local most, lease = tonumber(ARGV[5]), tonumber(ARGV[6])
  local out = 0
  local fields = redis.call('HGETALL', probes)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 'l:' then
      local ends = whole(fields[i + 1])
      if not ends or ends <= now or ends > now + 10 * lease then
        redis.call('HDEL', probes, fields[i])
      else
        out = out + 1
      end
    end
  end
  local ok, failed = ended('ok'), ended('failed')
  if out + ok + failed >= most then return { 0, 0, ok, failed } end
  redis.call('HSET', probes, owner, now + lease)
  return { 1, first, ok, failed }
end

local lease_end = whole(redis.call('HGET', probes, owner)) or 0
redis.call('HDEL', probes, owner)
if lease_end <= now then return nil end
ended(operation) -- what is no number cannot be counted on
if operation ~= 'neutral' then redis.call('HINCRBY', probes, operation, 1) end
return { 0, 0, ended('ok'), ended('failed') }
