-- look.lua: read sessions. Changes nothing unless it is a sign of life.
-- KEYS     the pool's keys (prelude)
-- ARGV     per session JSON: session_id, sign_of_life?
-- Returns  head; per session JSON {record, admission, online}, or !unknown, !ended (only the tombstone is left)

if not open_pool() then
  return NO_POOL
end

return each_item(function(item)
  local record = session(item.session_id)
  if not record then
    return absence(item.session_id)
  end
  if item.sign_of_life and record.status == 'active' and record.browser_seen ~= '1' then
    sign_of_life(record)
    pump()
  end
  return seen(record)
end)
