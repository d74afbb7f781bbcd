-- snapshot.lua: the whole pool at one moment: holders with their fences, the line in order, the last event. Read-only.
-- KEYS     the pool's keys (prelude.lua)
-- ARGV     none
-- Returns  head; id of the last event; holders (session_id, fence, ...); the line's session_ids in order

if not open_pool() then
  return NO_POOL
end

local holders = {}
for _, session_id in ipairs(redis.call('ZRANGE', INTERVIEWS, 0, -1)) do
  holders[#holders + 1] = session_id
  holders[#holders + 1] = redis.call('HGET', session_key(session_id), 'fence')
end
local last = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
return { head(), last and last[1] or '0-0', holders, redis.call('ZRANGE', LINE, 0, -1) }
