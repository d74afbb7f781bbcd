-- flush_refuse.lua: the table refused rows because it holds another state of their sessions.
-- KEYS     the pool's keys (prelude)
-- ARGV     MessagePack: per session an array of session_id, version, last_seen, refused_by (nil: not as old), final
-- Returns  head

if not open_pool() then
  return NO_POOL
end
begin_freeing()

-- The table holds a higher version than Redis knows of: Redis lost its memory. Rise above it and try again.
local function outrun(record, refused_by)
  outgrow('version', refused_by)
  set(record, 'version', next_number('version'))
  mark_dirty(record)
end

local function clean(record)
  if record.status == 'active' then
    make_clean({ record.session_id })
  else
    bury(record)
  end
end

-- The stay was completed before Redis lost its memory of it.
local function complete(record)
  if record.status == 'active' then
    finish(record, 'completed')
    pump()
  end
  clean(record)
end

local function refuse(session_id, version, last_seen, refused_by, final)
  local record = session(session_id)
  if not record then
    make_clean({ session_id })
    return
  end
  local known = tonumber(record.version)
  if final and known == version then
    complete(record)
  elseif refused_by and refused_by > known then
    outrun(record, refused_by)
  elseif known == version and tonumber(record.last_seen) == last_seen then
    clean(record)
  end
end

for _, item in ipairs(cmsgpack.unpack(ARGV[1])) do
  refuse(unpack(item, 1, 5))
end
save()
return { head() }
