-- snapshot.lua: the whole pool at one moment. Read-only.
-- KEYS     the pool's keys (prelude)
-- ARGV     none
-- Returns  head; id of the last event; holders (session_id, fence, interview_started_at, ...);
--          offers (session_id, ticket, ...) in the order of their tickets; the line in order; who of it is ready; lengths of past interviews (ms)

if not open_pool() then
  return NO_POOL
end

local holders = {}
for _, session_id in ipairs(redis.call('ZRANGE', INTERVIEWS, 0, -1)) do
  local state, fence, started_at =
    unpack(redis.call('HMGET', session_key(session_id), 'interview_state', 'fence', 'interview_started_at'))
  if state == 'granted' then
    holders[#holders + 1] = session_id
    holders[#holders + 1] = fence
    holders[#holders + 1] = started_at
  end
end
local last = redis.call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
return {
  head(),
  last and last[1] or '0-0',
  holders,
  redis.call('ZRANGE', OFFERS, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', LINE, 0, -1),
  redis.call('ZRANGE', READY, 0, -1),
  redis.call('LRANGE', LENGTHS, 0, -1),
}
