-- Take the late jobs that a worker would get next, up to the first that is not late.
--
-- Keys are those of kombu's Redis transport, and it can restore what is taken.
--
-- KEYS[1] queue    list  messages as JSON; workers take from its end
-- KEYS[2] unacked  hash  by delivery tag: [message, exchange, routing key], what workers hold
-- KEYS[3] index    zset  delivery tags by the server's time at which they were last heard of
-- ARGV[1] the budget's header, ARGV[2] fleet time, ARGV[3] how many at most,
-- ARGV[4] {"name of a task whose late jobs are dropped": true, …}, ARGV[5] the queue's name as JSON
-- -> messages

local time = redis.call('TIME')
local header, now, droppable = ARGV[1], tonumber(ARGV[2]), cjson.decode(ARGV[4])

local function field(value, name)
  return type(value) == 'table' and value[name] or nil
end

local taken = {}
for _ = 1, ARGV[3] do
  local raw = redis.call('LINDEX', KEYS[1], -1)
  local valid, message = pcall(cjson.decode, raw or '')
  local headers = valid and field(message, 'headers')
  local budget = field(headers, header)
  if budget == nil then -- some publishers nest headers
    budget = field(field(headers, 'headers'), header)
  end
  local deadline = field(budget, 'deadline')
  local properties = field(valid and message, 'properties')
  local tag = field(properties, 'delivery_tag')
  if type(deadline) ~= 'number' or deadline > now or not droppable[field(headers, 'task')]
      or type(tag) ~= 'string' then
    break
  end
  redis.call('RPOP', KEYS[1])
  redis.call('HSET', KEYS[2], tag, '[' .. raw .. ',"",' .. ARGV[5] .. ' ]')
  redis.call('ZADD', KEYS[3], string.format('%d.%06d', time[1], time[2]), tag)
  taken[#taken + 1] = raw
end
return taken
