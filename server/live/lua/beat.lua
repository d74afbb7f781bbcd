-- beat.lua: heartbeats of connections over HTTP.
-- KEYS     the pool's keys (prelude.lua)
-- ARGV     per heartbeat JSON: session_id, connection_id, page?, visible?
-- Returns  head; per heartbeat JSON {record, admission, online}, or !unknown, !ended, !stale_connection

if not open_pool() then
  return NO_POOL
end
allow_when_full()

return each_item(function(item)
  local record, refused = active_session(item.session_id)
  if not record then
    return refused
  elseif record.connection ~= 'http' or record.connection_id ~= item.connection_id then
    return '!stale_connection'
  end
  if item.visible ~= nil then
    set(record, 'visible', item.visible and '1' or '0')
  end
  if item.page and item.page ~= record.current_page then
    set(record, 'current_page', item.page)
    event('page', record)
  end
  present(record, window_ms(item.visible))
  pump()
  return { record = record, admission = admission(record), online = true }
end)
