-- Take the late jobs that a worker would get next, up to the first that is not late.
--
-- Keys are those of kombu's Redis transport, and it can restore what is taken.
--
-- KEYS[1] queue    list  messages as JSON; workers take from its end
-- KEYS[2] unacked  hash  by delivery tag: [message, exchange, routing key], what workers hold
-- KEYS[3] index    zset  delivery tags by the time at which they were taken
-- ARGV[1] the budget's header, ARGV[2] fleet time, ARGV[3] this host's time, ARGV[4] how many at
-- most, ARGV[5] {"name of a task whose late jobs are dropped": true, …}
-- -> messages

local header, now, droppable = ARGV[1], tonumber(ARGV[2]), cjson.decode(ARGV[5])

local function field(value, name)
  return type(value) == 'table' and value[name] or nil
end

local taken = {}
for _ = 1, ARGV[4] do
  local raw = redis.call('LINDEX', KEYS[1], -1)
  local valid, message = pcall(cjson.decode, raw or '')
  local headers = valid and field(message, 'headers')
  local deadline = field(field(headers, header), 'deadline')
  local properties = field(valid and message, 'properties')
  local tag, info = field(properties, 'delivery_tag'), field(properties, 'delivery_info')
  local exchange, key = field(info, 'exchange'), field(info, 'routing_key')
  if type(deadline) ~= 'number' or deadline > now or not droppable[field(headers, 'task')]
      or type(tag) ~= 'string' or type(exchange) ~= 'string' or type(key) ~= 'string' then
    break
  end
  redis.call('RPOP', KEYS[1])
  local held = '[' .. raw .. ',' .. cjson.encode(exchange) .. ',' .. cjson.encode(key) .. ']'
  redis.call('HSET', KEYS[2], tag, held)
  redis.call('ZADD', KEYS[3], ARGV[3], tag)
  taken[#taken + 1] = raw
end
return taken
