-- tick.lua: the periodic pass: reap those whose deadline ran out, abandon those away for too long, pump.
-- KEYS     the pool's keys (prelude.lua)
-- ARGV     none
-- Returns  head; its `more` asks the caller to run it again at once

if not open_pool() then
  return NO_POOL
end
allow_when_full()

each_due(ONLINE, now, reap)
each_due(OFFLINE, now - ms(config.abandon_after_s), function(record)
  finish(record, 'abandoned')
end)
pump()
save()
return { head() }
