-- touch.lua: bring last_seen of everyone present or in permit grace up to date, and mark them dirty, a part at a time.
-- KEYS     the pool's keys (prelude)
-- ARGV     rank to go down from (-1: the newest session), how many sessions to go through
-- Returns  head, then the rank to go on from, or -1 when all are done
--
-- Going down from the newest session misses none: sessions that are removed or added meanwhile move only those
-- that were seen already.

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local from, count = tonumber(ARGV[1]), tonumber(ARGV[2])
if from < 0 then
  from = redis.call('ZCARD', SESSIONS) - 1
end

-- Over HTTP, and before the browser was seen, last_seen is moved by each sign of life itself.
local function is_touched(session_id)
  local known = redis.call('HMGET', session_key(session_id), 'session_id', 'connection')
  if not known[1] then
    sweep(session_id)
    return false
  end
  return known[2] == 'ws' and is_present(session_id) or redis.call('ZSCORE', GRACE, session_id) ~= false
end

local dirty = {}
if from >= 0 then
  local last_seen = integer(wall)
  for _, session_id in ipairs(redis.call('ZRANGE', SESSIONS, math.max(0, from - count + 1), from)) do
    if is_touched(session_id) then
      redis.call('HSET', session_key(session_id), 'last_seen', last_seen)
      dirty[#dirty + 1] = last_seen
      dirty[#dirty + 1] = session_id
    end
  end
end
if #dirty > 0 and config.history == 1 then
  redis.call('ZADD', DIRTY, 'NX', unpack(dirty))
end
save()
return { head(), math.max(-1, from - count) }
