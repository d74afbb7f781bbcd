-- touch.lua: bring last_seen of everyone present or in permit grace up to date, a part at a time.
-- KEYS     the pool's keys (prelude)
-- ARGV     rank to go down from (-1: the newest session), how many sessions to go through, a name for the part
-- Returns  head; the rank to go on from, or -1 when all are done; the new last_seen; MessagePack: an array of the
--          session ids whose last_seen is all that is to be written, and an array of their versions
--
-- Nobody becomes dirty by it. The part is remembered under its name until touch_ack.lua; what no flusher lived to ack
-- is dirty once the next pass begins, so that a last_seen that Redis has is never lost to the table.
-- Going down from the newest session, one that is removed or added above moves only those that were seen already. One that
-- is added below (registered again, with its old start) may make another wait for the next pass.

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local from, count, part = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local last_seen = integer(wall)

if from < 0 then
  from = redis.call('ZCARD', SESSIONS) - 1
  for _, left in ipairs(redis.call('HVALS', TOUCHED)) do
    make_dirty(cmsgpack.unpack(left)[1])
  end
  redis.call('DEL', TOUCHED)
end

-- The members' scores in a set, which is often empty.
local function scores(key, members)
  return #members > 0 and redis.call('EXISTS', key) == 1 and redis.call('ZMSCORE', key, unpack(members)) or {}
end

-- Who is dirty is written whole, and was seen at that change. One that could not be written for long is seen again.
local LONG_MS = 20000

local function see_again(record)
  if record.status == 'active' and is_seen(record) then
    set(record, 'last_seen', wall)
  end
end

local function those_clean(members)
  local clean, marks = {}, scores(DIRTY, members)
  for i, session_id in ipairs(members) do
    if not marks[i] then
      clean[#clean + 1] = session_id
    elseif wall - marks[i] > LONG_MS then
      with_record(session_id, see_again)
    end
  end
  return clean
end

local to_write, versions = {}, {}

local function touch(members)
  local deadlines, graces = scores(ONLINE, members), scores(GRACE, members)
  for i, session_id in ipairs(members) do
    local key = session_key(session_id)
    local version, connection = unpack(redis.call('HMGET', key, 'version', 'connection'))
    if not version then
      sweep(session_id)
    elseif graces[i] or connection == 'ws' and tonumber(deadlines[i] or 0) > now then
      redis.call('HSET', key, 'last_seen', last_seen)
      to_write[#to_write + 1] = session_id
      versions[#versions + 1] = tonumber(version)
    end
  end
end

local members = those_clean(from >= 0 and redis.call('ZRANGE', SESSIONS, math.max(0, from - count + 1), from) or {})
touch(members)
local packed = cmsgpack.pack({ to_write, versions })
if config.history ~= 1 then
  packed = cmsgpack.pack({ {}, {} })
elseif #to_write > 0 then
  redis.call('HSET', TOUCHED, part, packed)
end
save()
return { head(), math.max(-1, from - count), wall, packed }
