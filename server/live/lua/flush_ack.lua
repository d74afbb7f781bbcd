-- flush_ack.lua: rows are committed, or were refused. Clean is what has not changed since it was taken.
-- KEYS     the pool's keys (prelude)
-- ARGV     MessagePack: the committed ones as an array of session ids, one of versions and one of last_seen; an array of
--          those refused: per session an array of session_id, version, last_seen, refused_by (nil: not as old), final
-- Returns  head; how many are clean now

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local unchanged, buried = {}, 0

-- The table holds a higher version than Redis knows of: Redis lost its memory. Rise above it and try again.
local function outrun(record, refused_by)
  outgrow('version', refused_by)
  set(record, 'version', next_number('version'))
end

local function clean(record)
  if record.status == 'active' then
    unchanged[#unchanged + 1] = record.session_id
  else
    bury(record)
    buried = buried + 1
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

local function acknowledge(session_id, version, last_seen, refused_by, final)
  -- Nearly all are neither refused nor ended: no need to read their whole records.
  local known = redis.call('HMGET', session_key(session_id), 'version', 'last_seen', 'status')
  local is_unchanged = tonumber(known[1]) == version and tonumber(known[2]) == last_seen
  if not known[1] then
    unchanged[#unchanged + 1] = session_id
  elseif final and tonumber(known[1]) == version then
    complete(session(session_id))
  elseif refused_by and refused_by > tonumber(known[1]) then
    outrun(session(session_id), refused_by)
  elseif is_unchanged and known[3] == 'active' then
    unchanged[#unchanged + 1] = session_id
  elseif is_unchanged then
    clean(session(session_id))
  end
end

local session_ids, versions, last_seen, refused = unpack(cmsgpack.unpack(ARGV[1]))
for i, session_id in ipairs(session_ids) do
  acknowledge(session_id, versions[i], last_seen[i])
end
for _, item in ipairs(refused) do
  acknowledge(unpack(item, 1, 5))
end
if #unchanged > 0 then
  redis.call('ZREM', DIRTY, unpack(unchanged))
end
-- Afterwards: the pump of a completed stay may have changed one of these, which makes it dirty again.
if next(changes) or next(counted) then
  save()
end
return { head(), #unchanged + buried }
