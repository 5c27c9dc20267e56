-- Collect the parts of one fan-out. All keys share one hash tag.
--
-- KEYS[1] record  hash    w:<part>  what is wanted of the part: "<place>;<required>;<life>;<key>". Its last
--                                   full answer is remembered at the key for so many ms; the last two
--                                   are empty for a part without such a memory
--                         left      number of parts that have not reported
--                         stale     JSON: [part, …], those with a memory, if there are any
--                         callback  JSON of the signature to publish at the end, if there is one
--                         due       the KEYS[4] of the process that opened it, if there is a callback
--                         p:<part>  how the part ended: "+<JSON value>" or "-<JSON why>"
--                         t:<part>  JSON of what the part had seen, if it reports that
--                         s:<part>  at the end, for a part that failed or is missing:
--                                   "<ms of life left>;<remembered answer>"
--                         final     why it ended; only l:<part>, late and read change afterwards
--                         l:<part>  set if the part reported after the end
--                         late      number of such parts
--                         read      set once somebody has read the ended record
-- KEYS[2] news    stream  one entry per part that reported, and one at the end
-- KEYS[3] done    stream  one entry, at the end
-- KEYS[4] due     zset    fan-outs with a callback of the caller's owner, by the server time in ms at
--                         which a worker must act unless somebody else has. The caller may have
--                         another owner than the fan-out: after open, the record's `due` counts
--
-- ARGV[1] id, ARGV[2] ms to keep the record after the end, ARGV[3] ms that a process has to publish
-- the callback, ARGV[4] operation, then its arguments:
--   open    stale or "", callback or "", budget in ms, then field and value of each w:<part>  -> "open"
--   report  part, payload, what the part has seen or "", whether this is a full answer (0/1)
--           -> "in" | "duplicate" | "late" | "gone" | "unknown": it has no such part;
--           as finish if the fan-out ended with this part
--   finish  why        -> "ended" | "callback": ended, and the caller must publish the callback
--                         | "already" | "gone"
--   settle: the callback was published                                          -> "settled"
--   collect            -> {1 if nobody has read the ended record before, field, value, …}

-- The caller takes id and part from a message, which anybody can write. So nothing else about the part
-- comes from there, and a part that was not opened changes nothing.

-- A callback that nobody has published within a day is given up.
local UNSETTLED = 86400000
-- Lua can hand over some thousands of arguments at a time.
local BATCH = 2000

local record, news, done = KEYS[1], KEYS[2], KEYS[3]
local due = redis.call('HGET', record, 'due') or KEYS[4]
local id, keep, lease, operation = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function expire(milliseconds)
  redis.call('PEXPIRE', record, milliseconds)
  redis.call('PEXPIRE', news, milliseconds)
  redis.call('PEXPIRE', done, milliseconds)
end

-- Return whether the part is required, the life in ms of its last full answer, and the key of that, or "".
local function parse(wanted)
  local required, life, key = string.match(wanted, '^%d+;([01]);(%d*);(.*)$')
  return required == '1', life, key or ''
end

local function finish(why)
  redis.call('HSET', record, 'final', why)
  local stale = redis.call('HGET', record, 'stale')
  if stale then
    for _, part in ipairs(cjson.decode(stale)) do
      local known = redis.call('HMGET', record, 'p:' .. part, 'w:' .. part)
      local ended, _, _, key = known[1], parse(known[2] or '')
      local answer = (not ended or string.sub(ended, 1, 1) == '-') and redis.call('GET', key)
      if answer then
        redis.call('HSET', record, 's:' .. part, redis.call('PTTL', key) .. ';' .. answer)
      end
    end
  end
  redis.call('XADD', news, '*', 'final', why)
  redis.call('XADD', done, '*', 'final', why)
  if redis.call('HEXISTS', record, 'callback') == 1 then
    redis.call('ZADD', due, now() + lease, id)
    redis.call('PEXPIRE', due, UNSETTLED)
    expire(UNSETTLED)
    return 'callback'
  end
  expire(keep)
  return 'ended'
end

if operation == 'open' then
  local stale, callback, budget, first = ARGV[5], ARGV[6], tonumber(ARGV[7]), 8
  redis.call('HSET', record, 'left', (#ARGV - first + 1) / 2)
  for at = first, #ARGV, BATCH do
    redis.call('HSET', record, unpack(ARGV, at, math.min(at + BATCH - 1, #ARGV)))
  end
  if stale ~= '' then redis.call('HSET', record, 'stale', stale) end
  if callback == '' then
    redis.call('PEXPIRE', record, budget + keep)
  else
    redis.call('HSET', record, 'callback', callback, 'due', due)
    redis.call('PEXPIRE', record, budget + UNSETTLED)
    redis.call('ZADD', due, now() + budget, id)
    redis.call('PEXPIRE', due, budget + UNSETTLED)
  end
  return 'open'
end

if operation == 'report' then
  local part, payload, seen = ARGV[5], ARGV[6], ARGV[7]
  local good, full = string.sub(payload, 1, 1) == '+', ARGV[8] == '1'
  local known = redis.call('HMGET', record, 'left', 'final', 'p:' .. part, 'w:' .. part)
  if not known[1] then return 'gone' end
  if not known[4] then return 'unknown' end
  local required, life, key = parse(known[4])
  if good and full and key ~= '' then
    redis.call('SET', key, life .. ':' .. string.sub(payload, 2), 'PX', life)
  end
  if known[3] then return 'duplicate' end
  if known[2] then
    -- A part reports again if the answer to its report was lost.
    if redis.call('HSETNX', record, 'l:' .. part, 1) == 1 then redis.call('HINCRBY', record, 'late', 1) end
    return 'late'
  end
  redis.call('HSET', record, 'p:' .. part, payload)
  if seen ~= '' then redis.call('HSET', record, 't:' .. part, seen) end
  redis.call('XADD', news, '*', 'part', part)
  if redis.call('XLEN', news) == 1 then
    redis.call('PEXPIRE', news, redis.call('PTTL', record))
  end
  if redis.call('HINCRBY', record, 'left', -1) == 0 then return finish('complete') end
  if good or not required or key ~= '' and redis.call('EXISTS', key) == 1 then return 'in' end
  return finish('required')
end

if operation == 'finish' then
  if redis.call('EXISTS', record) == 0 then
    redis.call('ZREM', due, id)
    return 'gone'
  end
  if redis.call('HEXISTS', record, 'final') == 1 then return 'already' end
  return finish(ARGV[5])
end

if operation == 'settle' then
  redis.call('ZREM', due, id)
  expire(keep)
  return 'settled'
end

if operation == 'collect' then
  local fields = redis.call('HGETALL', record)
  local first = redis.call('HEXISTS', record, 'final') == 1
    and redis.call('HSETNX', record, 'read', 1) == 1
  table.insert(fields, 1, first and 1 or 0)
  return fields
end

return redis.error_reply('unknown operation ' .. operation)
