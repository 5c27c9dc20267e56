-- Change the state of the features if nobody else has.
--
-- KEYS[1] flags  string  "<version>|<JSON>"
-- ARGV[1] the version as it was, "" if there was none, "?" if it was unreadable; ARGV[2] the new text
-- -> 1 if it was changed

local kept = redis.pcall('GET', KEYS[1])
local version = ''
if kept then version = type(kept) == 'string' and string.match(kept, '^(%d+)|') or '?' end
if version ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
