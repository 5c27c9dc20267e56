-- Merge what one session has written and seen into a record of many.
--
-- KEYS[1] record  hash  s                           whose it is; the first one stays
--                       p|<source>|<line>           20 digits: number, 16 digits: microseconds
--                       k|<source>/<key>|<line>     the same, of one key
--                       n|<source>                  16 digits: number of a write
--                       u|<source>                  16 digits: microseconds
-- Names are percent-encoded. Digits are compared as texts: as numbers of Lua, they would be rounded.
-- ARGV[1] ms for which the record lives at least, 0: as long as it does; then: field, value, …
-- -> {seconds, microseconds: fleet time; {field, value, …} of the whole record}

local MOST = {p = 256, k = 100, n = 16, u = 16}
local EVERYWHERE = 'u|%2A'

local record, kept = KEYS[1], {}
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])

local function set(field, value)
  local before = kept[field]
  if not before or (field ~= 's' and value > before) then
    kept[field] = value
    redis.call('HSET', record, field, value)
  end
end

-- The oldest go; where they were is then unknown, which no reader takes for seen.
local function trim(kind, most)
  local fields = {}
  for field in pairs(kept) do
    if string.sub(field, 1, 1) == kind and field ~= EVERYWHERE then fields[#fields + 1] = field end
  end
  table.sort(fields, function(one, other)
    local a, b = string.sub(kept[one], -16), string.sub(kept[other], -16)
    return a < b or (a == b and one < other)
  end)
  for i = 1, #fields - most do
    local field = fields[i]
    redis.call('HDEL', record, field)
    local source = (kind == 'p' or kind == 'k') and string.match(field, '^.|([^|/]+)')
    set(source and 'u|' .. source or EVERYWHERE, kind == 'n' and now or string.sub(kept[field], -16))
    kept[field] = nil
  end
end

local stored = redis.call('HGETALL', record)
for i = 1, #stored, 2 do kept[stored[i]] = stored[i + 1] end
for i = 2, #ARGV, 2 do set(ARGV[i], ARGV[i + 1]) end
for _, kind in ipairs({'p', 'k', 'n', 'u'}) do trim(kind, MOST[kind]) end
local life = tonumber(ARGV[1])
if life > 0 and redis.call('PTTL', record) < life then redis.call('PEXPIRE', record, life) end
return {time[1], time[2], redis.call('HGETALL', record)}
