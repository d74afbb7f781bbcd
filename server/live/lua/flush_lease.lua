-- flush_lease.lua: take, renew or give back the lease that says which node flushes the pool.
-- KEYS     the pool's keys (prelude)
-- ARGV     holder, ttl_ms (0 gives it back)
-- Returns  head, then 1 if the lease is the holder's (or given back), 0 if it is another's

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local key = PREFIX .. 'flush_lease'
local holder, ttl_ms = ARGV[1], tonumber(ARGV[2])
local current = redis.call('GET', key)
if current and current ~= holder then
  return { head(), 0 }
end
if ttl_ms > 0 then
  redis.call('SET', key, holder, 'PX', ttl_ms)
else
  redis.call('DEL', key)
end
return { head(), 1 }
