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
  if redis.call('EXISTS', session_key(session_id)) == 0 then
    sweep(session_id)
    return false
  end
  if redis.call('ZSCORE', GRACE, session_id) then
    return true
  end
  return is_present(session_id) and redis.call('HGET', session_key(session_id), 'connection') == 'ws'
end

if from >= 0 then
  for _, session_id in ipairs(redis.call('ZRANGE', SESSIONS, math.max(0, from - count + 1), from)) do
    if is_touched(session_id) then
      redis.call('HSET', session_key(session_id), 'last_seen', integer(wall))
      mark_dirty(session_id)
    end
  end
end
save()
return { head(), math.max(-1, from - count) }
