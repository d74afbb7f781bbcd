-- beat.lua: heartbeats of connections over HTTP.
-- KEYS     the pool's keys (prelude)
-- ARGV     per heartbeat JSON: session_id, connection_id, page?, visible?
-- Returns  head; per heartbeat JSON {record, admission, online}, or !unknown, !ended, !stale_connection

if not open_pool() then
  return NO_POOL
end
begin_freeing()

return each_item(function(item)
  local record, refused = active_session(item.session_id)
  if not record then
    return refused
  elseif record.connection ~= 'http' or record.connection_id ~= item.connection_id then
    return '!stale_connection'
  end
  present(record, window_ms(item.visible))
  expire()
  see(record, item.visible)
  go_to_page(record, item.page)
  pump()
  return seen(record)
end)
