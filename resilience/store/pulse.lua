-- A process reports what it has seen, and learns what the fleet has agreed on.
--
-- KEYS[1] circuits  hash  dependency -> "<generation>|<open until, ms>|<text>"
-- KEYS[2] told      string  the process that sent the last pulse
-- KEYS[3] flags     string  see flags.lua
-- KEYS[4] windows   hash  dependency -> its window, packed, in seconds of server time:
--                         HEAD    generation of the circuit, second of the last report, failures in
--                                 a row, totals of calls that succeeded, failed and were slow,
--                                 number of COUNTS
--                         COUNTS  one for each second with calls, oldest first: the second, calls
--                                 that succeeded, failed and were slow
--                         then, if any process saw a bad call, MessagePack of
--                         {process -> last second in which it saw one}
-- ARGV[1] process, ARGV[2] the version of the flags that it knows, "" if it does not ask for them,
-- ARGV[3] the version of the circuits that it knows, "" if it knows none,
-- ARGV[4] EVIDENCE per dependency: generation, window in seconds, ok, failed, age of the last
-- failure, slow, failures since the last success; ARGV[5…] name per dependency
-- -> {seconds, microseconds, version of the circuits,
--     {name, circuit, …} or nil if the process knows them,
--     flags or nil if the process knows them or does not ask, "" if there are none,
--     WINDOW per dependency: calls, failed, slow, reporters, failures in a row,
--     the keys of another type than these, which count as empty}
--
-- The version of the circuits is a digest of them. Whatever changes the circuits also changes the
-- version: a flush, a failover to older data, another version of these scripts.
--
-- Everybody who uses the store waits while this runs. So there is no command per dependency, and a
-- longer window takes no more time.

local HEAD, HEAD_SIZE = '>I8I8I8I8I8I8I8', 56
local COUNTS, COUNTS_SIZE = '>I4I4I4I4', 16
local EVIDENCE, EVIDENCE_SIZE = '>I8I8I8I8I8I8I8', 56
local WINDOW = '>I8I8I8I8I8'
local process = ARGV[1]
local time = redis.call('TIME')
local second = tonumber(time[1])
local day = 86400

-- Return what a command reads of a key. A key of another type is empty, until something is written.
local misplaced = {}
local function read(i, command, ...)
  local found = redis.pcall(command, KEYS[i], ...)
  if not found.err then return found end
  if not string.find(found.err, 'WRONGTYPE', 1, true) then return redis.call(command, KEYS[i], ...) end
  misplaced[#misplaced + 1] = KEYS[i]
  return {}
end

-- Return the generation of a circuit; 0 of what is none, as in fleet.py.
local function generation_of(text)
  local number, due = string.match(text or '', '^(%d+)|(%d+)|')
  if not number or #number > 16 or #due > 16 then return 0 end
  return tonumber(number)
end

-- Unpack the window. Return an empty one if it was counted for another generation than *current*,
-- or if its last report is too old or, because the clock was set back, too far in the future.
local function counted(packed, current, length)
  if packed and #packed >= HEAD_SIZE then
    local generation, reported, row, ok, failed, slow, seconds = struct.unpack(HEAD, packed)
    local size = HEAD_SIZE + seconds * COUNTS_SIZE
    if generation == current and math.abs(second - reported) <= length and size <= #packed then
      return {
        reported = reported, row = row, ok = ok, failed = failed, slow = slow,
        counts = string.sub(packed, HEAD_SIZE + 1, size), reporters = string.sub(packed, size + 1),
      }
    end
  end
  return { reported = 0, row = 0, ok = 0, failed = 0, slow = 0, counts = '', reporters = '' }
end

-- Add calls that ended in the second *at* to the totals, and to the COUNTS of that second.
local function add(window, at, ok, failed, slow)
  window.ok, window.failed, window.slow = window.ok + ok, window.failed + failed, window.slow + slow
  local counts = window.counts
  local i = #counts - COUNTS_SIZE + 1
  while i > 0 do
    local found, good, bad, late = struct.unpack(COUNTS, counts, i)
    if found == at then
      local sums = struct.pack(COUNTS, at, good + ok, bad + failed, late + slow)
      window.counts = string.sub(counts, 1, i - 1) .. sums .. string.sub(counts, i + COUNTS_SIZE)
      return
    elseif found < at then
      break
    end
    i = i - COUNTS_SIZE
  end
  i = i + COUNTS_SIZE
  local new = struct.pack(COUNTS, at, ok, failed, slow)
  window.counts = string.sub(counts, 1, i - 1) .. new .. string.sub(counts, i)
end

-- Add the evidence of this process. Its last failure was *age* seconds ago; so were its slow calls
-- if no call succeeded. Return the last second in which the process saw a bad call, nil if none.
local function add_evidence(window, length, ok, failed, age, slow, tail)
  window.reported = second
  window.row = ok > 0 and tail or window.row + failed
  local is_recent = age < length
  if ok > 0 then
    add(window, second, ok, 0, slow)
    if failed > 0 and is_recent then add(window, second - age, 0, failed, 0) end
    if slow > 0 then return second end
  elseif is_recent then
    add(window, second - age, 0, failed, slow)
  end
  return failed + slow > 0 and is_recent and second - age or nil
end

-- Drop the counts and reporters that are too old, and note that this process saw a bad call in the
-- second *bad*, unless that is nil. Return how many processes saw a bad call.
local function drop_old(window, length, bad)
  local oldest, counts, first = second - length, window.counts, 1
  while first < #counts do
    local at, ok, failed, slow = struct.unpack(COUNTS, counts, first)
    if at > oldest then break end
    window.ok, window.failed = math.max(0, window.ok - ok), math.max(0, window.failed - failed)
    window.slow = math.max(0, window.slow - slow)
    first = first + COUNTS_SIZE
  end
  window.counts = string.sub(counts, first)
  if window.reporters == '' and not bad then return 0 end
  local valid, seen = pcall(cmsgpack.unpack, window.reporters)
  if not valid or type(seen) ~= 'table' then seen = {} end
  if bad then seen[process] = bad end
  local reporters = 0
  for name, at in pairs(seen) do
    if type(at) == 'number' and at > oldest and at <= second + length then reporters = reporters + 1 else seen[name] = nil end
  end
  window.reporters = reporters > 0 and cmsgpack.pack(seen) or ''
  return reporters
end

-- First a write: a store that is full or read-only then refuses the whole pulse. The process decides
-- alone meanwhile; an answer would make it drop the circuits that it has opened by itself.
redis.call('SET', KEYS[2], process, 'EX', day)

local circuits = read(1, 'HGETALL')
if #circuits > 0 then redis.call('EXPIRE', KEYS[1], day) end

local windows, changed = {}, {}
if #ARGV > 4 then
  local known = {}
  for i = 1, #circuits, 2 do known[circuits[i]] = circuits[i + 1] end
  local kept = read(4, 'HMGET', unpack(ARGV, 5))
  for i = 1, #ARGV - 4 do
    local name, packed = ARGV[i + 4], kept[i]
    local generation, length, ok, failed, age, slow, tail =
      struct.unpack(EVIDENCE, ARGV[4], (i - 1) * EVIDENCE_SIZE + 1)
    local current = generation_of(known[name])
    local window, is_current, bad = counted(packed, current, length), generation == current, nil
    if is_current then bad = add_evidence(window, length, ok, failed, age, slow, tail) end
    local reporters = drop_old(window, length, bad)
    windows[i] = struct.pack(
      WINDOW, window.ok + window.failed, window.failed, window.slow, reporters, window.row
    )
    if is_current then
      changed[#changed + 1] = name
      changed[#changed + 1] = struct.pack(
        HEAD, current, window.reported, window.row, window.ok, window.failed, window.slow,
        #window.counts / COUNTS_SIZE
      ) .. window.counts .. window.reporters
    end
  end
end
if #changed > 0 then
  if misplaced[#misplaced] == KEYS[4] then redis.call('DEL', KEYS[4]) end
  redis.call('HSET', KEYS[4], unpack(changed))
  redis.call('EXPIRE', KEYS[4], day)
end

local version = redis.sha1hex(table.concat(circuits, '\n'))
local flags = false
if ARGV[2] ~= '' then
  flags = redis.pcall('GET', KEYS[3]) or ''
  if type(flags) == 'table' then flags = '?' end -- the key holds another type: it is not ours
  if string.match(flags, '^%d+') == ARGV[2] then flags = false end
end
circuits = ARGV[3] ~= version and circuits
return { time[1], time[2], version, circuits, flags, table.concat(windows), misplaced }
