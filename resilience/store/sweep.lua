-- Take fan-outs that a worker must finish.
--
-- KEYS[1] due  zset  see fanin.lua
-- ARGV[1] ms until others may take the same fan-outs, ARGV[2] how many to take at most
-- -> {ms until the next is due or -1 if there is none, id, …}

local due, lease, most = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if redis.call('TYPE', due).ok ~= 'zset' then redis.call('DEL', due) end
local taken = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, most)
for i = #taken, 1, -1 do
  if string.match(taken[i], '^[%w_.:-]+$') then
    redis.call('ZADD', due, now + lease, taken[i])
  else -- no process makes such an id
    redis.call('ZREM', due, table.remove(taken, i))
  end
end
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
table.insert(taken, 1, first[2] and math.max(0, first[2] - now) or -1)
return taken
