-- touch_ack.lua: the last_seen of parts that touch.lua gave out is committed, but for some sessions.
-- KEYS     the pool's keys (prelude)
-- ARGV     MessagePack: an array of the parts' names, and an array of the session ids that are to be written whole
-- Returns  head

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local parts, missed = unpack(cmsgpack.unpack(ARGV[1]))
if #missed > 0 then
  make_dirty(missed)
end
-- Behind it: were this to fail half-way, the parts would still be known.
for _, part in ipairs(parts) do
  redis.call('HDEL', TOUCHED, part)
end
return { head() }
