-- flush_take.lua: read dirty sessions, the longest dirty first. They stay dirty until acked.
-- KEYS     the pool's keys (prelude)
-- ARGV     how many of them to pass over, how many to read at most, then the names of the fields to read
-- Returns  head; how many more there were that have no record any more; MessagePack: per session an array of its fields
--          in the order of ARGV, session_id first (false where absent)

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local from, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local fields = {}
for i = 3, #ARGV do
  fields[i - 2] = ARGV[i]
end

local found, gone = {}, {}
for _, session_id in ipairs(redis.call('ZRANGE', DIRTY, from, from + count - 1)) do
  local values = redis.call('HMGET', session_key(session_id), unpack(fields))
  if values[1] then
    found[#found + 1] = values
  else
    gone[#gone + 1] = session_id
  end
end
if #gone > 0 then
  -- Nothing is left to write; kept, they would stand in the way of those behind them.
  redis.call('ZREM', DIRTY, unpack(gone))
end
-- Packed, since thousands of values each as a reply of their own take longer to write and to read.
return { head(), #gone, cmsgpack.pack(found) }
