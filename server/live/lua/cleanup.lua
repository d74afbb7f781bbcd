-- cleanup.lua: abandon the sessions that have been offline for longer than an operator allows.
-- KEYS     the pool's keys (prelude)
-- ARGV     older_than_ms
-- Returns  head, then how many were abandoned; the head's `more` asks the caller to run it again at once

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local older_than_ms = tonumber(ARGV[1])
local abandoned = 0

if not is_recovering() then
  each_due(OFFLINE, now - older_than_ms, function(record)
    finish(record, 'cleanup')
    abandoned = abandoned + 1
  end)
end
pump()
save()
return { head(), abandoned }
