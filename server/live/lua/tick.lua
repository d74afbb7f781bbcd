-- tick.lua: the periodic pass: reap those whose deadline ran out, abandon those away for too long, pump.
-- KEYS     the pool's keys (prelude)
-- ARGV     none
-- Returns  head; its `more` asks the caller to run it again at once

if not open_pool() then
  return NO_POOL
end
begin_freeing()

if not is_recovering() then
  each_due(ONLINE, now, reap)
  each_due(OFFLINE, now - ms(config.abandon_after_s), function(record)
    finish(record, 'abandoned')
  end)
end
pump()
save()
return { head() }
