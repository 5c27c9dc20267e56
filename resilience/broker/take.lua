-- Take messages and note in the same step who holds them, so that others get them if this worker dies.
--
-- The keys are those of kombu's Redis transport, whose workers can restore what is noted here.
--
-- KEYS[1]   unacked  hash  delivery tag -> [message, exchange, routing key]: what workers hold
-- KEYS[2]   index    zset  delivery tag -> server time in seconds of its last renewal
-- KEYS[3…]  list     messages as JSON; workers take from its end. The first list is served first
-- ARGV[1] how many at most, ARGV[2] the worker's number, ARGV[3…] the name of the queue that each list
-- belongs to, as JSON
-- -> {1 if all lists are empty now, number of the list, message, number of the list, message, …}; the
-- number is -1 - that of the list for a message that was set aside, as no worker can read it
--
-- The space before the last bracket says that the worker renews its messages; kombu's own writes none.
-- The exchange is a zero with the worker's number as exponent (see overdue.lua): to kombu it is none.
-- A client that tracks keys is notified when one of the empty lists gets a message.

-- One command for all lists, as a waiting worker repeats it again and again. The server's
-- notifications follow from it as from any other command that reads the lists.
local function are_empty() return redis.call('EXISTS', unpack(KEYS, 3)) == 0 end

if are_empty() then return { 1 } end

local most = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])

local function tag_of(raw)
  local valid, message = pcall(cjson.decode, raw)
  local properties = valid and type(message) == 'table' and message.properties
  local tag = type(properties) == 'table' and properties.delivery_tag
  return type(tag) == 'string' and tag or nil
end

-- Return the server's error if it refuses the note: the user lacks a permission, or a key has another
-- type. Lack of memory is no reason after an RPOP.
local function note(tag, raw, queue)
  local noted = '[' .. raw .. ',0e' .. ARGV[2] .. ',' .. queue .. ' ]'
  for _, command in ipairs({ { 'HSET', KEYS[1], tag, noted }, { 'ZADD', KEYS[2], now, tag } }) do
    local answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then return answer end
  end
end

-- The list has no priority, and `unreadable.py` says what is kept there.
local function set_aside(raw, key)
  local list = string.gsub(key, '\6\22%d+$', '') .. '.unreadable'
  local answer = redis.pcall('LPUSH', list, raw)
  if type(answer) == 'table' and answer.err then return answer end
  local why = { reason = 'it is no JSON object with a text as properties.delivery_tag', time = tonumber(time[1]) }
  redis.pcall('HSET', list .. '.reasons', redis.sha1hex(raw), cjson.encode(why))
end

local taken, found = { 0 }, 0
for i = 3, #KEYS do
  while found < most do
    local raw = redis.call('RPOP', KEYS[i])
    if not raw then break end
    local tag = tag_of(raw)
    local refusal
    if tag then refusal = note(tag, raw, ARGV[i]) else refusal = set_aside(raw, KEYS[i]) end
    if refusal then
      redis.call('RPUSH', KEYS[i], raw)
      return found > 0 and taken or refusal
    end
    taken[#taken + 1] = tag and i - 3 or 2 - i
    taken[#taken + 1] = raw
    found = found + 1
  end
end
if found < most and are_empty() then taken[1] = 1 end
return taken
