-- cleanup.lua: abandon the sessions that have been offline for longer than an operator allows.
-- KEYS     the pool's keys (prelude.lua)
-- ARGV     older_than_ms
-- Returns  head, then how many were abandoned; the head's `more` asks the caller to run it again at once

if not open_pool() then
  return NO_POOL
end
allow_when_full()

local older_than_ms = tonumber(ARGV[1])
local abandoned = 0

each_due(OFFLINE, now - older_than_ms, function(record)
  finish(record, 'cleanup')
  abandoned = abandoned + 1
end)
pump()
save()
return { head(), abandoned }
