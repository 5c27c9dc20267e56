-- When was the oldest message of a queue published?
--
-- KEYS[1] list of messages, the oldest last
-- -> seconds of fleet time as text; nil: there is none, or its publisher has not noted it
--
-- The message is not decoded: its body may be large. The body is Base64, and a quote within a
-- header is escaped, so that no argument can look like one of these headers.

local message = redis.call('LINDEX', KEYS[1], -1) or ''
return string.match(message, '"resilience%-sent": ?([%d.]+)')
  or string.match(message, '"resilience%-budget": ?{[^}]-"sent": ?([%d.]+)')
