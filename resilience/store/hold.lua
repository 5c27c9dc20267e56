-- Keep, replace or end an order to hold a queue, unless somebody else has changed it meanwhile.
--
-- KEYS[1] holds  hash  name of a dependency or queue -> its order, JSON
-- ARGV[1] the name, ARGV[2] the order that the caller knows or "", ARGV[3] the new order, "" to end
-- it, ARGV[4] 1 if it does not matter what the order was
-- -> 1 if it was changed, else 0

if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
if ARGV[4] ~= '1' and (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
return 1
