-- update.lua: new values for sessions: the page, the visibility, the metadata.
-- KEYS     the pool's keys (prelude.lua)
-- ARGV     per session JSON: session_id, connection_id?, page?, visible?, metadata?
--          with a connection_id only if that is the session's current connection
-- Returns  head; per session JSON {record, admission, online}, or !unknown, !ended, !stale_connection

if not open_pool() then
  return NO_POOL
end
refuse_when_full()

return each_item(function(item)
  local record, refused = active_session(item.session_id)
  if not record then
    return refused
  elseif item.connection_id and item.connection_id ~= record.connection_id then
    return '!stale_connection'
  end
  if item.page and item.page ~= record.current_page then
    set(record, 'current_page', item.page)
    event('page', record)
  end
  if item.visible ~= nil then
    set(record, 'visible', item.visible and '1' or '0')
  end
  if item.metadata then
    set(record, 'metadata', item.metadata)
  end
  return { record = record, admission = admission(record), online = is_present(item.session_id) }
end)
