-- prelude.lua: what every verb shares: clocks, counters, records, events, presence, permits, the line and the pump.
-- KEYS     the pool's keys, in the order of SCRIPT_KEYS in server/live/keys.py
-- ARGV     the verb's own; most verbs take one JSON object per item
-- Returns  an array: the head (the pool's state as JSON), then one entry per item: JSON, or '!' and why it was refused

local CONFIG, ONLINE, OFFLINE, INTERVIEWS, OFFERS, GRACE, LINE, READY, ABSENT, SESSIONS, ENDED, DIRTY, EVENTS = unpack(KEYS)
local PREFIX = string.sub(CONFIG, 1, -7)
local POOL = string.match(CONFIG, '{(.*)}')
local EVENTS_KEPT = 10000
local STEPS = 100
local HIDDEN_WINDOW_MS = 150000
local NO_CONNECTION = '-'
local NEVER = math.huge
local NO_POOL = redis.error_reply('NOPOOL there is no such pool; configure it first')

-- Lua would write a number above 1e14 as a float.
local function integer(number)
  return string.format('%.0f', number)
end

local function ms(seconds)
  return math.floor(seconds * 1000 + 0.5)
end

---------------------------------------------------------------------------------------------------
-- The pool: its configuration, clocks and counters

local config, wall, now
local counted = {}

local function read_config()
  local flat = redis.call('HGETALL', CONFIG)
  local fields = {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = tonumber(flat[i + 1]) or flat[i + 1]
  end
  return fields
end

-- `wall` is for what is stored or shown. `now` is for deadlines only: it follows the wall clock from script to
-- script, but by no more than max_step_ms at once and never backwards, so that no jump expires those who renew.
local function start_clocks()
  wall = read_clock()
  local passed = wall - (config.wall or wall)
  now = (config.now or wall) + math.max(0, math.min(passed, config.max_step_ms))
end

-- Returns whether the pool exists. Every verb begins with it.
local function open_pool()
  config = read_config()
  if not config.epoch then
    return false
  end
  start_clocks()
  return true
end

-- Out of memory, Redis lets a script write anything if its first write is one that frees, and nothing if it is one
-- that adds. Verbs that free begin with the first of these, verbs that add with the second.
local function allow_when_full()
  redis.call('ZREM', ONLINE, '')
end

local function refuse_when_full()
  redis.call('HSET', CONFIG, 'now', integer(now), 'wall', integer(wall))
end

-- The next value of a counter: it goes on rising even after Redis lost its memory.
local function next_number(name)
  local value = math.max((config[name] or 0) + 1, wall)
  config[name] = value
  counted[name] = true
  return value
end

---------------------------------------------------------------------------------------------------
-- Events

local function event(kind, record, ...)
  config.seq = (config.seq or 0) + 1
  counted.seq = true
  local entry = { 'type', kind, 'seq', integer(config.seq), 'epoch', config.epoch, 'at', integer(wall) }
  if record then
    entry[#entry + 1] = 'session_id'
    entry[#entry + 1] = record.session_id
    entry[#entry + 1] = 'user_id'
    entry[#entry + 1] = record.user_id
  end
  local extra = { ... }
  for i = 1, #extra do
    entry[#entry + 1] = extra[i]
  end
  redis.call('XADD', EVENTS, 'MAXLEN', '~', EVENTS_KEPT, '*', unpack(entry))
end

---------------------------------------------------------------------------------------------------
-- Records. They are read once per script, changed in memory, and written by `save`.

-- A change of one of these is a new version of the session, to be written to Postgres.
local COLUMNS = {}
for _, name in ipairs({
  'user_id', 'language_code', 'current_page', 'started_at', 'completed_at', 'is_in_interview', 'status',
  'interview_started_at', 'interview_ended_at', 'waited_s', 'end_reason', 'metadata',
}) do
  COLUMNS[name] = true
end

local records = {}
local changes = {}

local function session_key(session_id)
  return PREFIX .. 'session:' .. session_id
end

local function alive_key(session_id)
  return PREFIX .. 'alive:' .. session_id
end

local function user_key(user_id)
  return PREFIX .. 'user:' .. user_id
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

-- A new record in the place of any older one of that id.
local function new_session(session_id)
  redis.call('DEL', session_key(session_id), tombstone_key(session_id))
  redis.call('ZREM', ENDED, session_id)
  local record = { session_id = session_id }
  records[session_id] = record
  changes[session_id] = { session_id = true }
  return record
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

local function mark_dirty(session_id)
  if config.history == 1 then
    redis.call('ZADD', DIRTY, 'NX', wall, session_id)
  end
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
    mark_dirty(session_id)
  elseif changed.last_seen then
    mark_dirty(session_id)
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
  local fields = { 'now', integer(now), 'wall', integer(wall) }
  for name in pairs(counted) do
    fields[#fields + 1] = name
    fields[#fields + 1] = integer(config[name])
  end
  redis.call('HSET', CONFIG, unpack(fields))
end

---------------------------------------------------------------------------------------------------
-- Presence: the `alive:` TTL key and the `online` sorted set, always together

local function deadline(session_id)
  return tonumber(redis.call('ZSCORE', ONLINE, session_id) or nil)
end

local function is_present(session_id)
  local at = deadline(session_id)
  return at ~= nil and at > now
end

local function keep_alive(record, ttl_ms)
  redis.call('SET', alive_key(record.session_id), record.connection_id or NO_CONNECTION, 'PX', math.max(1, ttl_ms))
  redis.call('ZADD', ONLINE, now + ttl_ms, record.session_id)
end

local function window_ms(visible)
  local window = ms(config.online_window_s)
  return visible == false and math.max(window, HIDDEN_WINDOW_MS) or window
end

-- The session is present (again) for ttl_ms: out of any grace, and ready if it waits.
local function present(record, ttl_ms)
  local session_id = record.session_id
  keep_alive(record, ttl_ms)
  set(record, 'last_seen', wall)
  if not record.lost_at then
    return
  end
  set(record, 'lost_at', nil)
  redis.call('ZREM', OFFLINE, session_id)
  if record.interview_state == 'granted' then
    redis.call('ZREM', GRACE, session_id)
    redis.call('ZADD', INTERVIEWS, record.ends_at or NEVER, session_id)
  elseif record.interview_state == 'waiting' then
    redis.call('ZREM', ABSENT, session_id)
    redis.call('ZADD', READY, record.ticket, session_id)
  end
end

-- Opening, claiming and polling with the API key count until the session's browser has been seen.
local function sign_of_life(record)
  if record.browser_seen ~= '1' then
    present(record, window_ms())
  end
end

-- The connection was lost at `at` (by the `now` clock): a permit enters its grace, a waiter is no longer ready.
local function lose(record, at)
  if record.lost_at then
    return
  end
  local session_id = record.session_id
  set(record, 'lost_at', at)
  if record.interview_state == 'granted' then
    local ends = math.min(tonumber(record.ends_at) or NEVER, at + ms(config.permit_grace_max_s))
    redis.call('ZADD', GRACE, at, session_id)
    redis.call('ZADD', INTERVIEWS, ends, session_id)
    event('grace', record, 'fence', record.fence)
  elseif record.interview_state == 'waiting' then
    redis.call('ZADD', ABSENT, at, session_id)
    redis.call('ZREM', READY, session_id)
  end
end

local function forget_connection(record)
  set(record, 'connection', nil)
  set(record, 'connection_id', nil)
  set(record, 'node', nil)
end

-- The deadline ran out: offline. If no loss was reported before, it happened at the deadline.
local function reap(record, at)
  local session_id = record.session_id
  redis.call('ZREM', ONLINE, session_id)
  redis.call('DEL', alive_key(session_id))
  if record.connection then
    event('disconnected', record, 'cause', 'timeout', 'connection_id', record.connection_id)
    forget_connection(record)
  end
  lose(record, at)
  redis.call('ZADD', OFFLINE, record.lost_at, session_id)
  event('offline', record)
end

-- Drop a sorted-set member whose record is gone; without this a leftover would be met again for ever.
local function sweep(session_id)
  for _, key in ipairs({ ONLINE, OFFLINE, INTERVIEWS, OFFERS, GRACE, LINE, READY, ABSENT, SESSIONS }) do
    redis.call('ZREM', key, session_id)
  end
  redis.call('DEL', alive_key(session_id))
end

---------------------------------------------------------------------------------------------------
-- Permits and the line

local function grant(record)
  local session_id = record.session_id
  local fence = next_number('fence')
  local ends_at = config.max_interview_s > 0 and now + ms(config.max_interview_s) or nil
  redis.call('ZREM', LINE, session_id)
  redis.call('ZREM', READY, session_id)
  redis.call('ZADD', INTERVIEWS, ends_at or NEVER, session_id)
  set(record, 'interview_state', 'granted')
  set(record, 'reason', nil)
  set(record, 'ticket', nil)
  set(record, 'fence', fence)
  set(record, 'ends_at', ends_at)
  set(record, 'is_in_interview', '1')
  set(record, 'interview_started_at', wall)
  set(record, 'interview_ended_at', nil)
  set(record, 'waited_s', string.format('%.3f', math.max(0, wall - record.waiting_since) / 1000))
  set(record, 'waiting_since', nil)
  event('granted', record, 'fence', record.fence)
end

-- Take the permit back; the caller writes the event.
local function take_permit(record, reason)
  redis.call('ZREM', INTERVIEWS, record.session_id)
  redis.call('ZREM', GRACE, record.session_id)
  set(record, 'interview_state', 'none')
  set(record, 'reason', reason)
  set(record, 'ends_at', nil)
  set(record, 'is_in_interview', '0')
  set(record, 'interview_ended_at', wall)
end

local function join_line(record)
  local session_id = record.session_id
  if not record.lost_at and not is_present(session_id) then
    reap(record, deadline(session_id) or now)
  end
  local ticket = next_number('ticket')
  redis.call('ZADD', LINE, ticket, session_id)
  if record.lost_at then
    redis.call('ZADD', ABSENT, record.lost_at, session_id)
  else
    redis.call('ZADD', READY, ticket, session_id)
  end
  set(record, 'interview_state', 'waiting')
  set(record, 'reason', nil)
  set(record, 'ticket', ticket)
  set(record, 'waiting_since', wall)
end

-- Take the session out of the line; the caller writes the event.
local function quit_line(record, reason)
  redis.call('ZREM', LINE, record.session_id)
  redis.call('ZREM', READY, record.session_id)
  redis.call('ZREM', ABSENT, record.session_id)
  set(record, 'interview_state', 'none')
  set(record, 'reason', reason)
  set(record, 'ticket', nil)
  set(record, 'waiting_since', nil)
end

-- Whatever the session holds is given up, with the event that says so; `cause` says why.
local function release(record, reason, cause)
  if record.interview_state == 'granted' then
    take_permit(record, reason)
    event('released', record, 'fence', record.fence, 'cause', cause)
  elseif record.interview_state == 'waiting' then
    quit_line(record, reason)
    event('left_line', record, 'cause', cause)
  end
end

---------------------------------------------------------------------------------------------------
-- Ending

-- Delete an ended session; what stays is a tombstone, so that old tokens revive nothing.
local function bury(record)
  local key = tombstone_key(record.session_id)
  redis.call('DEL', session_key(record.session_id))
  redis.call('ZREM', ENDED, record.session_id)
  redis.call('ZREM', DIRTY, record.session_id)
  redis.call('HSET', key, 'status', record.status, 'end_reason', record.end_reason)
  redis.call('PEXPIRE', key, config.tombstone_ms)
  changes[record.session_id] = nil
  records[record.session_id] = false
end

local REASON_OF_END = { completed = 'completed', kicked = 'kicked', abandoned = 'expired', cleanup = 'expired' }
local EVENT_OF_END = { completed = 'completed', kicked = 'kicked', abandoned = 'abandoned', cleanup = 'abandoned' }

local function finish(record, end_reason)
  local session_id = record.session_id
  local reason = REASON_OF_END[end_reason]
  if record.interview_state == 'granted' then
    take_permit(record, reason)
  elseif record.interview_state == 'waiting' then
    quit_line(record, reason)
  end
  redis.call('ZREM', ONLINE, session_id)
  redis.call('ZREM', OFFLINE, session_id)
  redis.call('DEL', alive_key(session_id))
  redis.call('ZREM', SESSIONS, session_id)
  redis.call('ZREM', user_key(record.user_id), session_id)
  forget_connection(record)
  set(record, 'lost_at', nil)
  set(record, 'reason', reason)
  set(record, 'end_reason', end_reason)
  set(record, 'status', end_reason == 'completed' and 'completed' or 'abandoned')
  set(record, 'completed_at', end_reason == 'completed' and wall or nil)
  event(EVENT_OF_END[end_reason], record, 'cause', end_reason)
  if config.history == 1 then
    redis.call('ZADD', ENDED, record.started_at, session_id)
  else
    bury(record)
  end
end

---------------------------------------------------------------------------------------------------
-- The pump: expire what is past its deadline, then hand free places to the ready waiters, lowest ticket first

-- Every loop is bounded. Whether one stopped at its bound: the caller then runs the pump again at once.
local more = false

-- Gives the members of `key` that are due at `latest` to `act`, the longest due first.
local function each_due(key, latest, act)
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', latest, 'WITHSCORES', 'LIMIT', 0, STEPS)
  for i = 1, #due, 2 do
    local record = session(due[i])
    if record then
      act(record, tonumber(due[i + 1]))
    else
      sweep(due[i])
    end
  end
  more = more or #due == 2 * STEPS
end

local function expire_permit(record)
  local is_over = record.ends_at and tonumber(record.ends_at) <= now
  release(record, is_over and 'max_length' or 'expired', is_over and 'max_length' or 'grace')
end

local function expire_ticket(record)
  release(record, 'expired', 'expired')
end

-- Whether there is a free place, if need be by reclaiming the permit of the holder who is absent for longest.
local function find_place()
  if redis.call('ZCARD', INTERVIEWS) < config.limit then
    return true
  end
  local absent = redis.call('ZRANGEBYSCORE', GRACE, '-inf', now - ms(config.permit_grace_min_s), 'LIMIT', 0, 1)[1]
  if not absent then
    return false
  end
  expire_permit(session(absent))
  return redis.call('ZCARD', INTERVIEWS) < config.limit
end

-- Whether a waiter in READY is still present; one whose deadline has run out is reaped, and so no longer ready.
local function is_ready(session_id)
  local record = session(session_id)
  local at = deadline(session_id)
  if record and at and at > now then
    return true
  elseif record then
    reap(record, at or now)
  else
    sweep(session_id)
  end
  return false
end

local function pump()
  each_due(INTERVIEWS, now, expire_permit)
  each_due(ABSENT, now - ms(config.resume_s), expire_ticket)
  if config.mode ~= 'open' then
    return
  end
  for _ = 1, STEPS do
    local session_id = redis.call('ZRANGE', READY, 0, 0)[1]
    if not session_id then
      return
    elseif is_ready(session_id) then
      if not find_place() then
        return
      end
      grant(session(session_id))
    end
  end
  more = true
end

---------------------------------------------------------------------------------------------------
-- Replies

-- A session's standing: the interview object without its sentence.
local function admission(record)
  local state = record.interview_state or 'none'
  local view = { state = state }
  if state == 'granted' then
    view.fence = tonumber(record.fence)
    view.ends_in_ms = record.ends_at and math.max(0, record.ends_at - now) or nil
  elseif state == 'waiting' then
    view.ticket = tonumber(record.ticket)
    view.position = redis.call('ZRANK', LINE, record.session_id) + 1
    view.waiting = redis.call('ZCARD', LINE)
  else
    view.reason = record.reason
  end
  return view
end

local function head()
  local offered = redis.call('ZCARD', OFFERS)
  return cjson.encode({
    pool = POOL,
    epoch = config.epoch,
    seq = config.seq or 0,
    at = wall,
    mode = config.mode,
    limit = config.limit,
    active = redis.call('ZCARD', INTERVIEWS) - offered,
    offered = offered,
    waiting = redis.call('ZCARD', LINE),
    online = redis.call('ZCOUNT', ONLINE, '(' .. integer(now), '+inf'),
    sessions = redis.call('ZCARD', SESSIONS),
    more = more,
    recovering = false,
  })
end

-- Why a session without a record cannot be used: unknown, or ended some time ago.
local function absence(session_id)
  local end_reason = redis.call('HGET', tombstone_key(session_id), 'end_reason')
  return end_reason and '!ended ' .. end_reason or '!unknown'
end

-- The record of a session that has not ended, or nil and the refusal.
local function active_session(session_id)
  local record = session(session_id)
  if not record then
    return nil, absence(session_id)
  end
  if record.status ~= 'active' then
    return nil, '!ended ' .. record.end_reason
  end
  return record
end

-- Runs `act` on each item, saves, and returns the reply. A refusal of one item does not touch the others. The
-- records are encoded only after they were saved, since saving gives them their versions.
local function each_item(act)
  local items, answers = {}, {}
  for i = 1, #ARGV do
    items[i] = cjson.decode(ARGV[i])
  end
  for i = 1, #ARGV do
    answers[i] = act(items[i])
  end
  if next(changes) or next(counted) then
    save()
  end
  local reply = { head() }
  for i = 1, #ARGV do
    local answer = answers[i]
    reply[i + 1] = type(answer) == 'table' and cjson.encode(answer) or answer
  end
  return reply
end
