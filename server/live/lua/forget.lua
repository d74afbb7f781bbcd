-- forget.lua: erase a person, a part at a time: sessions, what waits to be written, tombstones, events.
-- KEYS     the pool's keys (prelude)
-- ARGV     JSON {user_id, session_ids: of rows of the past, ended?: ZSCAN cursor, events?: id to go on behind}
--          without `ended` or `events` that part is through
-- Returns  head, then JSON {erased: session ids, version: above all that they had, ended?, events?, more}
--
-- What is left of a session is a tombstone without language and reason of its own, so that no old token and no node
-- brings it back, and an event without the person's name, so that nodes close its socket.

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local ENDED_AT_ONCE, EVENTS_AT_ONCE = 200, 500
local request = cjson.decode(ARGV[1])
local user_id = request.user_id
local erased = {}

-- Nothing may be written of the person from here on, neither by an event nor under a key.
local function make_nameless(record)
  local session_id = record.session_id
  redis.call('ZREM', user_key(user_id), session_id)
  redis.call('ZREM', holding_key(user_id), session_id)
  record.user_id, record.language_code = '', nil
end

local function erase(record)
  make_nameless(record)
  if record.status == 'active' then
    finish(record, 'kicked')
  end
  record.end_reason = 'kicked'
  if session(record.session_id) then
    bury(record)
  end
  erased[#erased + 1] = record.session_id
end

local function erase_active()
  for _, session_id in ipairs(redis.call('ZRANGE', user_key(user_id), 0, STEPS - 1)) do
    local record = session(session_id)
    if record then
      erase(record)
    else
      redis.call('ZREM', user_key(user_id), session_id)
    end
  end
  if redis.call('EXISTS', user_key(user_id)) == 1 then
    more = true
  else
    redis.call('DEL', holding_key(user_id))
  end
end

-- Ended, but not yet written.
local function erase_ended(cursor)
  local found = redis.call('ZSCAN', ENDED, cursor, 'COUNT', ENDED_AT_ONCE)
  for i = 1, #found[2], 2 do
    local session_id = found[2][i]
    if redis.call('HGET', session_key(session_id), 'user_id') == user_id then
      erase(session(session_id))
    end
  end
  return found[1] ~= '0' and found[1] or nil
end

-- Sessions that only rows tell of: a token may still be about, and a tombstone names the language.
local function bury_past(session_id)
  if redis.call('EXISTS', session_key(session_id)) == 0 then
    bury({ session_id = session_id, end_reason = 'kicked' })
  end
end

local function is_about(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'user_id' then
      return fields[i + 1] == user_id
    end
  end
  return false
end

local function erase_events(after)
  local entries = redis.call('XRANGE', EVENTS, after == '-' and '-' or '(' .. after, '+', 'COUNT', EVENTS_AT_ONCE)
  for _, entry in ipairs(entries) do
    if is_about(entry[2]) then
      redis.call('XDEL', EVENTS, entry[1])
    end
  end
  return #entries == EVENTS_AT_ONCE and entries[#entries][1] or nil
end

erase_active()
local ended = request.ended and erase_ended(request.ended)
for _, session_id in ipairs(request.session_ids) do
  bury_past(session_id)
end
pump()
-- As long as the person has sessions, more events may follow.
local events = request.events
if events and not more and not ended then
  events = erase_events(events)
end
local version = next_number('version')
save()
return { head(), cjson.encode({
  erased = #erased > 0 and erased or nil,
  version = version,
  ended = ended,
  events = events,
  more = more or ended ~= nil or events ~= nil,
}) }
