-- flush_take.lua: read dirty sessions, the longest dirty first. They stay dirty until acked.
-- KEYS     the pool's keys (prelude)
-- ARGV     how many at most, then the names of the fields to read
-- Returns  head; per session its fields in the order of ARGV, session_id first (null where absent)

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local fields = {}
for i = 2, #ARGV do
  fields[#fields + 1] = ARGV[i]
end

local reply = { '' }
for _, session_id in ipairs(redis.call('ZRANGE', DIRTY, 0, tonumber(ARGV[1]) - 1)) do
  local values = redis.call('HMGET', session_key(session_id), unpack(fields))
  if values[1] then
    reply[#reply + 1] = values
  else
    -- Nothing is left to write; kept, it would stand in the way of those behind it.
    redis.call('ZREM', DIRTY, session_id)
  end
end
reply[1] = head()
return reply
