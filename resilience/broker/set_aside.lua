-- Move a message that nobody can read to where an operator finds it.
--
-- KEYS[1] unacked  hash  delivery tag -> what is noted of the message
-- KEYS[2] index    zset  delivery tag -> server time in seconds of its last renewal
-- KEYS[3] list     messages that cannot be read, as they came; the oldest is the last
-- KEYS[4] reasons  hash  SHA-1 of a message -> {"reason", "time"} as JSON
-- ARGV[1] message, ARGV[2] delivery tag, '' if the caller cannot read it, ARGV[3] reason

local raw, tag = ARGV[1], ARGV[2]
if tag == '' then tag = cjson.decode(raw).properties.delivery_tag end
local noted = redis.call('HGET', KEYS[1], tag)
-- Another message may have the same tag.
local held = noted and string.sub(noted, 2, #raw + 1) == raw
if held then redis.call('HDEL', KEYS[1], tag) end -- first what frees memory, see restore.lua
local pushed = redis.pcall('LPUSH', KEYS[3], raw)
if type(pushed) == 'table' and pushed.err then
  if held then redis.call('HSET', KEYS[1], tag, noted) end
  return pushed
end
if held then redis.call('ZREM', KEYS[2], tag) end
local time = redis.call('TIME')
local why = cjson.encode({ reason = ARGV[3], time = tonumber(time[1]) })
redis.pcall('HSET', KEYS[4], redis.sha1hex(raw), why)
return 1
