-- Replace what many have written and seen, if nobody else has replaced it meanwhile.
--
-- KEYS[1] record  string  JSON of a token, which is not read here
-- ARGV[1] the record as it was, "" if there was none
-- ARGV[2] the record as it shall be, "" to leave it as it is
-- ARGV[3] ms for which it lives from now, or longer already
-- -> {seconds, microseconds: fleet time; the record}

local record = redis.call('GET', KEYS[1]) or ''
if ARGV[2] ~= '' and record == ARGV[1] then
  record = ARGV[2]
  local life = math.max(tonumber(ARGV[3]), redis.call('PTTL', KEYS[1]))
  redis.call('SET', KEYS[1], record, 'PX', life)
end
local time = redis.call('TIME')
return {time[1], time[2], record}
