-- flush_ack.lua: rows are committed, or were refused. Clean is what has not changed since it was taken.
-- KEYS     the pool's keys (prelude)
-- ARGV     per session JSON: session_id, version, last_seen, refused_by?, final?
-- Returns  head; per session 1 clean, 0 still dirty

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local CLEAN, STILL_DIRTY = 1, 0

local function clean(record)
  if record.status == 'active' then
    redis.call('ZREM', DIRTY, record.session_id)
  else
    bury(record)
  end
  return CLEAN
end

-- The table holds a higher version than Redis knows of: Redis lost its memory. Rise above it and try again.
local function outrun(record, refused_by)
  outgrow('version', refused_by)
  set(record, 'version', next_number('version'))
  return STILL_DIRTY
end

return each_item(function(item)
  local record = session(item.session_id)
  if not record then
    redis.call('ZREM', DIRTY, item.session_id)
    return CLEAN
  elseif item.final and tonumber(record.version) == item.version then
    -- The stay was completed before Redis lost its memory of it.
    if record.status == 'active' then
      finish(record, 'completed')
      pump()
    end
    return clean(record)
  elseif item.refused_by and item.refused_by > tonumber(record.version) then
    return outrun(record, item.refused_by)
  elseif tonumber(record.version) == item.version and tonumber(record.last_seen) == item.last_seen then
    return clean(record)
  end
  return STILL_DIRTY
end)
