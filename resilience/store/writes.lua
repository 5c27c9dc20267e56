-- The recent writes of one session to one source.
--
-- KEYS[1] writes  hash  n        number of the last step
--                       dropped  number of the newest record that went as there were too many
--                       lost     the same, of those whose write might not have ended
--                       bytes    length of all records
--                       k:<key>  a record, "<pending>|<held>|<number>|<payload>":
--                                pending  number of a write that has not ended, or 0
--                                held     number of one that overlapped with another, or 0
--                                number   of the write that the payload tells of
--                                payload  "=<version>:<value>", "-<version>:" for a deletion,
--                                         "#<version>:" without the value, "?" if the value is not
--                                         known, empty if no write has ended
-- A number is the server's time in microseconds, or more if that was given out or known already.
-- A write that is pending or held may still change the value at the source, as long as it lives:
-- until then the payload does not count.
--
-- ARGV[1] life of a record in microseconds; ARGV[2] most keys; ARGV[3] most bytes
-- ARGV[4] highest number that the session knows of; ARGV[5] operation, then its arguments:
--   fetch                                     -> {time, n, dropped, key, record, ...}, the live ones
--   begin   key                               -> {time, number, n before}
--   finish  key, number that begin gave or 0 if it did not answer, payload, 1 if the write
--           overlapped in its process else 0  -> the same, and 1 if the payload counts else 0
--   abort   key, as finish                    -> as begin

local writes, life, operation = KEYS[1], tonumber(ARGV[1]), ARGV[5]
local most_keys, most_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])

local kind = redis.call('TYPE', writes).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', writes) end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function whole(text)
  local number = text and string.match(text, '^%d+$') and tonumber(text) or 0
  return number < 9e15 and number or 0
end

local function live(number) return number + life > now end

-- Without a payload: the text is none that a script wrote.
local function parse(text)
  local pending, held, number, payload = string.match(text, '^(%d+)|(%d+)|(%d+)|(.*)$')
  if payload and math.max(tonumber(pending), tonumber(held), tonumber(number)) < 9e15 then
    return tonumber(pending), tonumber(held), tonumber(number), payload
  end
  return 0, 0, 0
end

local before = whole(redis.call('HGET', writes, 'n'))
local dropped = whole(redis.call('HGET', writes, 'dropped'))

local function records()
  local all, found, bytes = redis.call('HGETALL', writes), {}, 0
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'k:' then
      local pending, held, number, payload = parse(all[i + 1])
      found[#found + 1] = {
        field = all[i], text = all[i + 1], size = #all[i] + #all[i + 1],
        newest = payload and math.max(pending, held, number) or before,
        open = payload and math.max(pending, held) or before,
      }
      bytes = bytes + found[#found].size
    end
  end
  table.sort(found, function(a, b) return a.newest < b.newest end)
  return found, bytes
end

if operation == 'fetch' then
  local answer = {now, before, dropped}
  for _, one in ipairs(records()) do
    if live(one.newest) then
      answer[#answer + 1] = string.sub(one.field, 3)
      answer[#answer + 1] = one.text
    end
  end
  return answer
end

local field, of = 'k:' .. ARGV[6], tonumber(ARGV[7])
local lost = whole(redis.call('HGET', writes, 'lost'))
local step = math.max(before + 1, whole(ARGV[4]) + 1, now)
local old = redis.call('HGET', writes, field)
local pending, held, number, payload = parse(old or '')

if operation == 'begin' then
  local hidden = not payload and (old or live(lost))
  if live(pending) or hidden then held = step end
  pending = step
else
  local mine = of > 0 and pending == of
  if operation == 'finish' then
    number, payload = step, ARGV[8]
    if not mine or ARGV[9] == '1' then held = step end
    if live(held) then payload = '?' end
  end
  if mine then pending = 0 end
end

payload = payload or ''
local bytes = whole(redis.call('HGET', writes, 'bytes')) - (old and #field + #old or 0)
if payload == '' and pending == 0 and not live(held) then
  redis.call('HDEL', writes, field)
else
  local text = string.format('%.0f|%.0f|%.0f|', pending, held, number) .. payload
  redis.call('HSET', writes, field, text)
  bytes = bytes + #field + #text
end

if bytes > most_bytes or redis.call('HLEN', writes) > most_keys + 4 then
  local found
  found, bytes = records()
  for i, one in ipairs(found) do
    -- A tenth more than needed, so that not every step has to look for the oldest.
    if bytes <= 0.9 * most_bytes and #found - i < 0.9 * most_keys then break end
    redis.call('HDEL', writes, one.field)
    bytes, dropped = bytes - one.size, math.max(dropped, one.newest)
    if live(one.open) then lost = math.max(lost, one.open) end
  end
end

local function text(value) return string.format('%.0f', value) end
redis.call('HSET', writes, 'n', text(step), 'bytes', text(math.max(0, bytes)),
  'dropped', text(dropped), 'lost', text(lost))
-- A second more: a number whose hash has gone has outlived its records.
redis.call('PEXPIRE', writes, math.floor(life / 1000) + 1000)
return {now, step, before, operation == 'finish' and payload ~= '?' and 1 or 0}
