-- Note the connection of a worker's heartbeat, and return the workers that it watches.
--
-- A worker watches those with the next higher connection ids; after the highest id comes the lowest.
--
-- KEYS[1] holders  zset  worker -> id of its heartbeat's connection
-- ARGV[1] worker, ARGV[2] id of its connection, ARGV[3] how many others it watches
-- -> {worker, id, worker, id, …}
--
-- A server that is out of memory may refuse the note. That is safe: what this worker holds when it is
-- killed then waits for the silence limit, as without notes.

redis.pcall('ZADD', KEYS[1], ARGV[2], ARGV[1])
local mine, most = '(' .. ARGV[2], tonumber(ARGV[3])
local found = redis.call('ZRANGEBYSCORE', KEYS[1], mine, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
local left = most - #found / 2
if left > 0 then
  local first = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', mine, 'WITHSCORES', 'LIMIT', 0, left)
  for _, value in ipairs(first) do found[#found + 1] = value end
end
return found
