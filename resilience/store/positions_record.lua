-- Replace a record that many processes merge positions into, unless another has replaced it first.
--
-- KEYS[1] record  string  JSON of a token; this script does not parse it
-- ARGV[1] the record that the caller read, "" if there was none
-- ARGV[2] the new record, "" to leave it unchanged
-- ARGV[3] ms for which a new record lives, or the rest of the old one's life if that is longer
-- -> {seconds and microseconds of fleet time, the record in the store now}

local record = redis.pcall('GET', KEYS[1]) or ''
if type(record) == 'table' then record = '' end -- a key of another type is no record, and replaced
if ARGV[2] ~= '' and record == ARGV[1] then
  record = ARGV[2]
  local life = math.max(tonumber(ARGV[3]), redis.call('PTTL', KEYS[1]))
  redis.call('SET', KEYS[1], record, 'PX', life)
end
local time = redis.call('TIME')
return {time[1], time[2], record}
