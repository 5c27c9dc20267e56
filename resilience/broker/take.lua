-- Take messages, and note who is to be given them again if this worker dies: in one step.
--
-- The keys are those of kombu's Redis transport, whose workers can restore what is noted here.
--
-- KEYS[1]   unacked  hash  by delivery tag: [message, exchange, routing key], what workers hold
-- KEYS[2]   index    zset  delivery tags by the server's time at which they were last heard of
-- KEYS[3…]  list     messages as JSON; workers take from its end. The first one is served first
-- ARGV[1] how many at most, ARGV[2…] the name of the queue that each list belongs to, as JSON
-- -> {1 if all lists are empty now, number of the list, message, number of the list, message, …}
--
-- The space before the last bracket says that the worker will be heard of: kombu's own write none.
-- A client that tracks keys is told when one of the lists that were empty gets a message.

local most = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])

local function tag_of(raw)
  local valid, message = pcall(cjson.decode, raw)
  local properties = valid and type(message) == 'table' and message.properties
  local tag = type(properties) == 'table' and properties.delivery_tag
  return type(tag) == 'string' and tag or nil
end

-- Return why it cannot be noted, if so: the user may not, or the keys are somebody else's. Behind
-- RPOP memory is no reason.
local function note(tag, raw, queue)
  local noted = '[' .. raw .. ',"",' .. queue .. ' ]'
  for _, command in ipairs({ { 'HSET', KEYS[1], tag, noted }, { 'ZADD', KEYS[2], now, tag } }) do
    local answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then return answer end
  end
end

local taken, found = { 0 }, 0
for i = 3, #KEYS do
  while found < most do
    local raw = redis.call('RPOP', KEYS[i])
    if not raw then break end
    local tag = tag_of(raw)
    if tag then
      local refusal = note(tag, raw, ARGV[i - 1])
      if refusal then
        redis.call('RPUSH', KEYS[i], raw)
        return found > 0 and taken or refusal
      end
      taken[#taken + 1] = i - 3
      taken[#taken + 1] = raw
      found = found + 1
    else
      -- No worker can read it, and none may lose it.
      redis.call('LPUSH', KEYS[i] .. '.unreadable', raw)
      taken[#taken + 1] = -1
      taken[#taken + 1] = raw
    end
  end
end
if found < most then
  taken[1] = 1
  for i = 3, #KEYS do redis.call('LLEN', KEYS[i]) end
end
return taken
