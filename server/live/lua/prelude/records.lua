-- prelude/records.lua: the records of sessions. They are read once per script, changed in memory, written by `save`.

-- The row that Postgres gets of a session, in the order of PresenceRow; as a line, see persistence/lines.py. Who changes it
-- raises the number in the name of ROWS (prelude/pool.lua): nodes of two versions read no lines of each other.
local SEPARATOR, NULL = '\31', '\30'
local ROW = {
  'session_id', 'user_id', 'pool', 'status', 'version', 'started_at', 'last_seen', 'is_in_interview', 'language_code',
  'current_page', 'completed_at', 'interview_started_at', 'interview_ended_at', 'waited_s', 'end_reason', 'metadata',
}
-- A change of one of these is a new version of it.
local COLUMNS = {}
for _, name in ipairs(ROW) do
  COLUMNS[name] = name ~= 'session_id' and name ~= 'pool' and name ~= 'version' and name ~= 'last_seen'
end

local records = {}
local changes = {}

-- Whether a standing changed since the pump last came to its end: only then may it find more to do. And whether there
-- may be deadlines that ran out: at first, and again as soon as one is set that lies in the past already.
local is_stirred, is_overdue = true, true

local function session_key(session_id)
  return PREFIX .. 'session:' .. session_id
end

local function alive_key(session_id)
  return PREFIX .. 'alive:' .. session_id
end

local function user_key(user_id)
  return PREFIX .. 'user:' .. user_id
end

-- The user's sessions that have a permit, an offer or a place in the line: few, however many sessions there are.
local function holding_key(user_id)
  return PREFIX .. 'holding:' .. user_id
end

local function tombstone_key(session_id)
  return PREFIX .. 'tombstone:' .. session_id
end

-- The record of a session, or nil.
local function session(session_id)
  local known = records[session_id]
  if known ~= nil then
    return known or nil
  end
  local flat = redis.call('HGETALL', session_key(session_id))
  local record = false
  if #flat > 0 then
    record = {}
    for i = 1, #flat, 2 do
      record[flat[i]] = flat[i + 1]
    end
  end
  records[session_id] = record
  return record or nil
end

-- Change a field; nil removes it. Numbers are kept as text, as Redis gives them back.
local function set(record, field, value)
  if type(value) == 'number' then
    value = integer(value)
  end
  if record[field] == value then
    return
  end
  record[field] = value
  local changed = changes[record.session_id] or {}
  changed[field] = true
  changes[record.session_id] = changed
end

-- A new session in the place of any older one of that id. `started_at` is wall-clock ms.
local function new_session(session_id, user_id, started_at)
  redis.call('DEL', session_key(session_id), tombstone_key(session_id))
  redis.call('ZREM', ENDED, session_id)
  redis.call('ZADD', SESSIONS, started_at, session_id)
  redis.call('ZADD', user_key(user_id), started_at, session_id)
  local record = { session_id = session_id }
  records[session_id] = record
  changes[session_id] = { session_id = true }
  set(record, 'pool', POOL)
  set(record, 'user_id', user_id)
  set(record, 'status', 'active')
  set(record, 'started_at', started_at)
  set(record, 'is_in_interview', '0')
  set(record, 'interview_state', 'none')
  return record
end

-- A dirty session's score in DIRTY is since when it is dirty; each further change raises it by a hair. So a score is the
-- mark of one state: who took another one does not confirm this (flush_ack.lua).
local A_HAIR = 1 / 1024

-- The row stands ready behind the mark of its state. One whose mark is not the present one is made anew (flush_take.lua).
local function keep_row(record, mark)
  local values = { mark }
  for i, name in ipairs(ROW) do
    values[i + 1] = record[name] or NULL
  end
  local row = table.concat(values, SEPARATOR)
  redis.call('HSET', ROWS, record.session_id, row)
  return row
end

-- The session has changed, and is to be written. Its row is made now, and not by the flush, which would hold Redis for as
-- long as it reads thousands of records.
local function mark_dirty(record)
  if config.history ~= 1 then
    return
  end
  local mark = integer(wall)
  if redis.call('ZADD', DIRTY, 'NX', mark, record.session_id) == 0 then
    mark = redis.call('ZINCRBY', DIRTY, A_HAIR, record.session_id)
  end
  keep_row(record, mark)
end

-- The same for many, whose rows are left to be made when they are taken.
local function make_dirty(session_ids)
  local members = {}
  for i, mark in ipairs(redis.call('ZMSCORE', DIRTY, unpack(session_ids))) do
    members[2 * i - 1] = mark and mark + A_HAIR or wall
    members[2 * i] = session_ids[i]
  end
  redis.call('ZADD', DIRTY, unpack(members))
end

local function make_clean(session_ids)
  redis.call('ZREM', DIRTY, unpack(session_ids))
  redis.call('HDEL', ROWS, unpack(session_ids))
end

-- Whether a flush would say that the session was seen just now: it has a WebSocket and is present, or is in permit grace.
-- Over HTTP, and before the browser was seen, last_seen is moved by each sign of life itself.
local function is_seen(record)
  if record.lost_at then
    return record.interview_state == 'granted'
  end
  local at = record.connection == 'ws' and redis.call('ZSCORE', ONLINE, record.session_id)
  return at and tonumber(at) > now
end

local function is_new_version(changed)
  for field in pairs(changed) do
    if COLUMNS[field] then
      return true
    end
  end
  return false
end

local function save_record(session_id, changed)
  local record = records[session_id]
  if is_new_version(changed) then
    set(record, 'version', next_number('version'))
    if record.status == 'active' and is_seen(record) then
      set(record, 'last_seen', wall)
    end
    mark_dirty(record)
  elseif changed.last_seen then
    mark_dirty(record)
  end
  local written, removed = {}, {}
  for field in pairs(changed) do
    if record[field] == nil then
      removed[#removed + 1] = field
    else
      written[#written + 1] = field
      written[#written + 1] = record[field]
    end
  end
  if #written > 0 then
    redis.call('HSET', session_key(session_id), unpack(written))
  end
  if #removed > 0 then
    redis.call('HDEL', session_key(session_id), unpack(removed))
  end
end

-- Write what changed: records, clocks, counters. Every verb that changes anything ends with it.
local function save()
  for session_id, changed in pairs(changes) do
    save_record(session_id, changed)
  end
  save_config()
end

-- Drop a sorted-set member whose record is gone; without this a leftover would be met again for ever.
local function sweep(session_id)
  for _, key in ipairs({ ONLINE, OFFLINE, INTERVIEWS, OFFERS, GRACE, LINE, READY, ABSENT, SESSIONS }) do
    redis.call('ZREM', key, session_id)
  end
  redis.call('DEL', alive_key(session_id))
  is_stirred = true
end

-- Give the record of a set's member to `act`.
local function with_record(session_id, act, ...)
  local record = session(session_id)
  if record then
    act(record, ...)
  else
    sweep(session_id)
  end
end
