-- Replace the state of the features, unless somebody else has replaced it meanwhile.
--
-- KEYS[1] flags  string  "<version>|<JSON>"
-- ARGV[1] the text that the caller read, "" if there was none, "?" if the key was of another type
-- ARGV[2] the new text
-- -> 1 if it was replaced, else 0

local kept = redis.pcall('GET', KEYS[1]) or ''
if type(kept) == 'table' then kept = '?' end
if kept ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
