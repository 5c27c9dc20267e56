-- Recall an answer, and how much of its life is left.
--
-- KEYS[1] answer  string  "<life in ms>:<JSON>"; see answers.py
-- -> nil, or "<ms until it expires>:<life in ms>:<JSON>": clients read one string faster than a list

local text = redis.call('GET', KEYS[1])
return text and redis.call('PTTL', KEYS[1]) .. ':' .. text
