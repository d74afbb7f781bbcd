-- update.lua: new values for sessions: the page, the visibility, the metadata.
-- KEYS     the pool's keys (prelude)
-- ARGV     per session JSON: session_id, connection_id?, page?, visible?, metadata?
--          with a connection_id only if that is the session's current connection
-- Returns  head; per session JSON {record, admission, online}, or !unknown, !ended, !stale_connection

if not open_pool() then
  return NO_POOL
end
begin_freeing()

return each_item(function(item)
  local record, refused = active_session(item.session_id)
  if not record then
    return refused
  elseif item.connection_id and item.connection_id ~= record.connection_id then
    return '!stale_connection'
  end
  go_to_page(record, item.page)
  expire()
  see(record, item.visible)
  if item.metadata then
    set(record, 'metadata', item.metadata)
  end
  pump()
  return seen(record)
end)
