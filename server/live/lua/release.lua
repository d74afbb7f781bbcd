-- release.lua: give permits back, or leave the line; with a fence only that permit. Repeating it changes nothing.
-- KEYS     the pool's keys (prelude)
-- ARGV     per session JSON: session_id, fence?
-- Returns  head; per session JSON, its standing; or !unknown, !stale_fence

if not open_pool() then
  return NO_POOL
end
begin_freeing()

-- A permit that the session had before it came into the line again is as old as one with a lower fence.
local function is_stale(record, fence)
  local state = record.interview_state
  return fence ~= tonumber(record.fence) or state == 'waiting' or state == 'offered'
end

return each_item(function(item)
  local record = session(item.session_id)
  if not record then
    local end_reason = redis.call('HGET', tombstone_key(item.session_id), 'end_reason')
    return end_reason and { state = 'none', reason = REASON_OF_END[end_reason] } or '!unknown'
  elseif item.fence and is_stale(record, item.fence) then
    return '!stale_fence'
  end
  release(record, 'released', 'released')
  pump()
  return admission(record)
end)
