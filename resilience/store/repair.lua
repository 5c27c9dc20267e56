-- Delete what nobody can read, unless it has changed since somebody looked.
--
-- KEYS[1] any key
-- ARGV[1] its type; ARGV[2] field, member or index, and ARGV[3] value, both as found; without them
-- the whole key goes
-- -> 1 if it was deleted, else 0

local key, kind, name, value = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if redis.call('TYPE', key).ok ~= kind then return 0 end
if not name then return redis.call('DEL', key) end
if kind == 'string' and redis.call('GET', key) == value then return redis.call('DEL', key) end
if kind == 'hash' and redis.call('HGET', key, name) == value then return redis.call('HDEL', key, name) end
if kind == 'list' then -- with commands that work needs, too
  local all, left = redis.call('LRANGE', key, 0, -1), redis.call('PTTL', key)
  redis.call('DEL', key)
  for i = #all, 1, -1 do
    if all[i] ~= value then redis.call('LPUSH', key, all[i]) end
  end
  if left > 0 then redis.call('PEXPIRE', key, left) end
  return 1
end
if kind == 'zset' then return redis.call('ZREM', key, name) end
return 0
