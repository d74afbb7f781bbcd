-- finish.lua: end sessions: completed, kicked or abandoned. Repeating the same end changes nothing.
-- KEYS     the pool's keys (prelude)
-- ARGV     per session JSON: session_id, reason (an end_reason), fence?
-- Returns  head; per session JSON, its standing; or !unknown, !stale_fence, !ended (in another way)

if not open_pool() then
  return NO_POOL
end
begin_freeing()

-- `before` is the record or the tombstone of a session that has ended already.
local function ended(item, before)
  if before.end_reason == item.reason then
    return standing_after(before)
  end
  return '!ended ' .. before.end_reason
end

return each_item(function(item)
  local record = session(item.session_id)
  if not record then
    local left = tombstone(item.session_id)
    return left and ended(item, left) or '!unknown'
  elseif record.status ~= 'active' then
    return ended(item, record)
  elseif is_stale(record, item.fence) then
    return '!stale_fence'
  end
  finish(record, item.reason)
  pump()
  return admission(record)
end)
