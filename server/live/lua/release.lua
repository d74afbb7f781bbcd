-- release.lua: give permits back, or leave the line; with a fence only that permit. Repeating it changes nothing.
-- KEYS     the pool's keys (prelude)
-- ARGV     per session JSON: session_id, fence?
-- Returns  head; per session JSON, its standing; or !unknown, !stale_fence

if not open_pool() then
  return NO_POOL
end
begin_freeing()

return each_item(function(item)
  local record = session(item.session_id)
  if not record then
    local left = tombstone(item.session_id)
    return left and standing_after(left) or '!unknown'
  elseif is_stale(record, item.fence) then
    return '!stale_fence'
  end
  release(record, 'released', 'released')
  pump()
  return admission(record)
end)
