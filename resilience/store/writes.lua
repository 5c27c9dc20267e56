-- Read or extend the recent writes of one session to one source.
--
-- KEYS[1] writes  hash  n        number of the last step
--                       lost     number of the last step before records were dropped, as too many
--                       bytes    length of all records
--                       k:<key>  a record, "<number>|<payload>"; the payload is one of
--                                "=<version>:<value>", "-<version>:" for a deletion,
--                                "#<version>:" without the value,
--                                "?" if only the primary knows: the record is open
-- A number is the server's time in microseconds, or more if that number is in use or known already.
--
-- A write takes two steps. It begins with an open record, and ends by replacing that with its result.
-- The record stays open if another write has replaced it meanwhile, or if the record before it was
-- open, too: then another write may still be under way.
--
-- ARGV[1] life of a record in microseconds; ARGV[2] most keys; ARGV[3] most bytes
-- ARGV[4] highest number that the session knows of
-- Without more arguments    -> {time, n, lost, whole hash}
-- ARGV[5] key to write to   -> {time, number, n before, record, own, record before}
-- ARGV[6] "own" as returned when the write began, which is "" if the record before it was open
-- ARGV[7] the record that replaces it; a record without a number gets the number of this step

local writes, life, field, known = KEYS[1], tonumber(ARGV[1]), ARGV[5], ARGV[4]

local kind = redis.call('TYPE', writes).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', writes) end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Return the number that *text* contains by *pattern*; 0 if this script did not write the text.
local function number_of(text, pattern)
  local number = tonumber(string.match(text or '', pattern) or 0)
  return number < 9e15 and number or 0
end
local function field_of(name) return number_of(redis.call('HGET', writes, name), '^%d+$') end
local function digits(number) return string.format('%.0f', number) end

local before, lost = field_of('n'), field_of('lost')
if not field then return {now, before, lost, redis.call('HGETALL', writes)} end

known, field = number_of(known, '^%d+$'), 'k:' .. field
if known > before then redis.call('DEL', writes) end  -- an older copy: the last writes are missing
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
-- The hash lives a second longer than its records: once it is gone, none of them counted any more.
redis.call('PEXPIRE', writes, math.floor(life / 1000) + 1000)
return {now, step, before, text, open and '' or text, old}
