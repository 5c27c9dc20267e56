-- The recent writes of one session to one source.
--
-- KEYS[1] writes  hash  n        number of the last step
--                       lost     number of the step at which records were dropped: too many
--                       bytes    length of all records
--                       k:<key>  a record, "<number>|<payload>"; the payload is one of
--                                "=<version>:<value>", "-<version>:" for a deletion,
--                                "#<version>:" without the value,
--                                "?" if only the primary knows: the record is open
-- A number is the server's time in microseconds, or more if that was given out or known already.
--
-- A write begins with an open record. At its end that makes way for what it tells, if it is still
-- there, and if the record before it was not open. Else another write has come in between, or may
-- still come, and the record stays open.
--
-- ARGV[1] life of a record in microseconds; ARGV[2] most keys; ARGV[3] most bytes
-- ARGV[4] highest number that the session knows of
-- Without more arguments    -> {time, n, lost, whole hash}
-- ARGV[5] key to write to   -> {time, number, n before, record, own, record before}
-- ARGV[6] "own" as returned when the write began; "" if another write stands in its way
-- ARGV[7] the record in its place; without a number it gets that of this step

local writes, life, field, known = KEYS[1], tonumber(ARGV[1]), ARGV[5], ARGV[4]

local kind = redis.call('TYPE', writes).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', writes) end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- The number that a text begins with; 0 if no script wrote it.
local function number_of(text, pattern)
  local number = tonumber(string.match(text or '', pattern) or 0)
  return number < 9e15 and number or 0
end
local function field_of(name) return number_of(redis.call('HGET', writes, name), '^%d+$') end
local function digits(number) return string.format('%.0f', number) end

local before, lost = field_of('n'), field_of('lost')
if not field then return {now, before, lost, redis.call('HGETALL', writes)} end

known, field = number_of(known, '^%d+$'), 'k:' .. field
if known > before then redis.call('DEL', writes) end  -- it may be a backup, without the last writes
local step = math.max(before + 1, known + 1, now)
local old = redis.call('HGET', writes, field)
if not string.match(old or '', '^%d+|') then old = digits(lost) .. '|?' end
local open = string.match(old, '^%d+|%?$') and number_of(old, '^(%d+)|') + life > now
local text = old == ARGV[6] and ARGV[7] or '|?'
if string.sub(text, 1, 1) == '|' then text = digits(step) .. text end

local new = redis.call('HSET', writes, field, text) == 1
local bytes = field_of('bytes') + #text + (new and #field or -#old)
if bytes > tonumber(ARGV[3]) or redis.call('HLEN', writes) > tonumber(ARGV[2]) + 3 then
  redis.call('DEL', writes)
  redis.call('HSET', writes, field, text)
  bytes, lost = #field + #text, before
end
redis.call('HSET', writes, 'n', digits(step), 'lost', digits(lost), 'bytes', digits(bytes))
-- A second more: a number whose hash has gone has outlived its records.
redis.call('PEXPIRE', writes, math.floor(life / 1000) + 1000)
return {now, step, before, text, open and '' or text, old}
