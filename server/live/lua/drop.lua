-- drop.lua: connections were lost; their sessions' grace begins. Only the current connection counts.
-- KEYS     the pool's keys (prelude)
-- ARGV     per connection JSON: session_id, connection_id, cause
-- Returns  head; per connection 1 dropped, 0 it was not the current one and nothing changed

if not open_pool() then
  return NO_POOL
end
begin_freeing()

return each_item(function(item)
  local record = active_session(item.session_id)
  if not record or record.connection_id ~= item.connection_id then
    return 0
  end
  event('disconnected', record, 'cause', item.cause, 'connection_id', item.connection_id)
  forget_connection(record)
  set(record, 'last_seen', wall)
  keep_alive(record, ms(config.grace_s))
  lose(record, now)
  pump()
  return 1
end)
