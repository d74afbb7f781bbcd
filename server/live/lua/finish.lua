-- finish.lua: end sessions: completed, kicked or abandoned. Repeating the same end changes nothing.
-- KEYS     the pool's keys (prelude)
-- ARGV     per session JSON: session_id, reason (an end_reason), fence?
-- Returns  head; per session JSON, its standing; or !unknown, !stale_fence, !ended (in another way)

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local function ended(item, end_reason)
  if end_reason == item.reason then
    return { state = 'none', reason = REASON_OF_END[end_reason] }
  end
  return '!ended ' .. end_reason
end

return each_item(function(item)
  local record = session(item.session_id)
  if not record then
    local end_reason = redis.call('HGET', tombstone_key(item.session_id), 'end_reason')
    return end_reason and ended(item, end_reason) or '!unknown'
  elseif record.status ~= 'active' then
    return ended(item, record.end_reason)
  elseif item.fence and item.fence ~= tonumber(record.fence) then
    return '!stale_fence'
  end
  finish(record, item.reason)
  pump()
  return admission(record)
end)
