-- state.lua: the pool's counts. Read-only.
-- KEYS     the pool's keys (prelude)
-- ARGV     none
-- Returns  head

if not open_pool() then
  return NO_POOL
end
return { head() }
