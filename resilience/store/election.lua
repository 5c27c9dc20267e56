-- One worker reports, and tries to become or stay the leader.
--
-- KEYS[1] reports  hash    worker -> "<server time, ms>|<JSON>"
-- KEYS[2] leader   string  the worker that leads; the key expires with its lead
-- KEYS[3] flags    string  see flags.lua
-- ARGV[1] worker; ARGV[2] its report; ARGV[3] ms for which a report and a lead last
-- -> {1 if flags looks like a document else 0, 1 if the worker leads else 0, report, ...}
--    only the leader gets reports: those of all live workers

local worker, lasts = ARGV[1], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

for key, kind in pairs({[KEYS[1]] = 'hash', [KEYS[2]] = 'string'}) do
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end

redis.call('HSET', KEYS[1], worker, string.format('%.0f', now) .. '|' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], lasts)

local flags = redis.pcall('GET', KEYS[3])
local document = type(flags) == 'string' and string.match(flags, '^%d+|{.*}$') and 1 or 0
local leader = redis.call('GET', KEYS[2])
local left = redis.call('PTTL', KEYS[2])
local leads = left > 0 and left <= 10 * lasts -- longer than any lead, or without an end: none of ours
if leader and leader ~= worker and leads then return {document, 0} end
redis.call('SET', KEYS[2], worker, 'PX', lasts)

local answer = {document, 1}
local reports = redis.call('HGETALL', KEYS[1])
for i = 1, #reports, 2 do
  local at, text = string.match(reports[i + 1], '^(%d+)|(.*)$')
  if at and math.abs(now - tonumber(at)) < lasts then
    answer[#answer + 1] = text
  else
    redis.call('HDEL', KEYS[1], reports[i])
  end
end
return answer
