-- Agree on the ledger that keeps the jobs of some queues.
--
-- KEYS[1] ledgers  hash: queue -> JSON {id, host, place, seen}; it stays until another is accepted
-- ARGV[1] id of the caller's ledger, ARGV[2] its host if it is a file, which serves one host, else ""
-- ARGV[3] where it is, for people to read; ARGV[4] look, join or accept
-- ARGV[5] seconds for which a host counts after it joined last; ARGV[6...] queues
-- -> {queue, place, queue, place, ...} of the queues that another ledger keeps. If there is any,
--    join changes nothing

local id, host, place, mode, patience = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local now = tonumber(redis.call('TIME')[1])
local others = {}
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
for i = 6, #ARGV do
  local text = redis.call('HGET', KEYS[1], ARGV[i])
  local read, kept = pcall(cjson.decode, text or '')
  if read and type(kept) == 'table' and type(kept.id) == 'string'
      and type(kept.place) == 'string' then
    -- A copy of a file on another host has the same id. It is noticed while both hosts join.
    local seen = type(kept.seen) == 'number' and kept.seen or 0
    local elsewhere = kept.host ~= host and math.abs(now - seen) < patience
    if kept.id ~= id or (host ~= '' and elsewhere) then
      others[#others + 1] = ARGV[i]
      others[#others + 1] = tostring(kept.place)
    end
  end
end
if mode == 'accept' or (mode == 'join' and #others == 0) then
  local text = cjson.encode({id = id, host = host, place = place, seen = now})
  for i = 6, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], text) end
end
return others
