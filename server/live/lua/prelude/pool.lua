-- prelude/pool.lua: the pool itself: its keys, configuration, clocks, counters, events and recovery window.
--
-- The parts of the prelude stand in front of every verb, in the order pool, records, presence, permits, pump, replies.
-- KEYS     the pool's keys, in the order of SCRIPT_KEYS in server/live/keys.py
-- ARGV     the verb's own; most verbs take one JSON object per item
-- Returns  an array: the head (the pool's state as JSON), then one entry per item: JSON, or '!' and why it was refused

local CONFIG, ONLINE, OFFLINE, INTERVIEWS, OFFERS, GRACE, LINE, READY, ABSENT, SESSIONS, ENDED, DIRTY, LENGTHS, EVENTS, TALLIES = unpack(KEYS)
local PREFIX = string.sub(CONFIG, 1, -7)
local ROWS, TOUCHED = PREFIX .. 'rows:1', PREFIX .. 'touched'
local POOL = string.match(CONFIG, '{(.*)}')
local EVENTS_KEPT = 10000
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
-- Configuration, clocks, counters

local config, wall, now, run_id
local counted, tallied = {}, {}

local function read_config()
  local flat = redis.call('HGETALL', CONFIG)
  local fields = {}
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    -- A run id may look like a number.
    fields[name] = name ~= 'run_id' and tonumber(value) or value
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
  run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  return true
end

-- The next value of a counter: it goes on rising even after Redis lost its memory.
local function next_number(name)
  local value = math.max((config[name] or 0) + 1, wall)
  config[name] = value
  counted[name] = true
  return value
end

-- A number was given out by a Redis that has lost it since: rise above it.
local function outgrow(name, number)
  if number and number > (config[name] or 0) then
    config[name] = number
    counted[name] = true
  end
end

-- Monitoring counts what happens: by event, and what is no event by a name of its own. The names are few, and name
-- nobody.
local function tally(name)
  tallied[name] = (tallied[name] or 0) + 1
end

local function save_tallies()
  for name, count in pairs(tallied) do
    redis.call('HINCRBY', TALLIES, name, count)
  end
  tallied = {}
end

local function save_config()
  local fields = { 'now', integer(now), 'wall', integer(wall) }
  for name in pairs(counted) do
    fields[#fields + 1] = name
    fields[#fields + 1] = integer(config[name])
  end
  redis.call('HSET', CONFIG, unpack(fields))
  save_tallies()
end

---------------------------------------------------------------------------------------------------
-- Events

-- Events that are tallied by their cause, too, and the causes there are: elsewhere a cause is an id or free text. They
-- stand in texts, since every script would build a table anew.
local TALLIED_BY_CAUSE =
  ' connected disconnected offline waiting offered offer_missed granted released left_line abandoned '
local CAUSES = ' new replaced closed timeout bye drain too_slow too_many_messages bad_message binary grace deadline '
  .. 'expired absent withdrawn taken_over recovered released max_length abandoned cleanup '

local function is_among(words, word)
  return string.find(words, ' ' .. word .. ' ', 1, true) ~= nil
end

local function tally_event(kind, cause)
  if cause and is_among(TALLIED_BY_CAUSE, kind) then
    tally(kind .. ':' .. (is_among(CAUSES, cause) and cause or 'other'))
  else
    tally(kind)
  end
end

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
  local extra, cause = { ... }, nil
  for i = 1, #extra, 2 do
    entry[#entry + 1] = extra[i]
    entry[#entry + 1] = extra[i + 1]
    cause = extra[i] == 'cause' and extra[i + 1] or cause
  end
  tally_event(kind, cause)
  redis.call('XADD', EVENTS, 'MAXLEN', '~', EVENTS_KEPT, '*', unpack(entry))
end

---------------------------------------------------------------------------------------------------
-- The recovery window: after Redis lost its memory or changed its master, nothing is granted and nothing expires
-- until the nodes had the time to register again what they hold.

local function is_recovering()
  return config.run_id ~= run_id or (config.recovery_until or 0) > now
end

-- The epoch is random if the caller gives a random `salt`; two servers never make the same one.
local function open_recovery(salt)
  config.run_id = run_id
  config.epoch = 'e' .. string.sub(redis.sha1hex(run_id .. integer(wall) .. (salt or '')), 1, 16)
  config.seq = 0
  config.recovery_until = now + ms(config.recovery_s)
  counted.recovery_until = true
  -- What was given out before was given out by now, so that a clock set back later leads to no old number.
  for _, name in ipairs({ 'fence', 'ticket', 'version', 'connection_id' }) do
    outgrow(name, wall)
  end
  redis.call('HSET', CONFIG, 'run_id', run_id, 'epoch', config.epoch)
  event('recovery_started')
  save_config()
end

local function close_recovery()
  config.recovery_until = nil
  counted.recovery_until = nil
  redis.call('HDEL', CONFIG, 'recovery_until')
  event('recovery_ended')
end

-- Out of memory, Redis lets a script write anything if its first write is one that frees, and nothing if it is one
-- that adds. So every verb that writes begins with one of these two.
local function begin_freeing()
  redis.call('ZREM', ONLINE, '')
  if config.run_id ~= run_id then
    open_recovery()
  end
end

local function begin_adding()
  redis.call('HSET', CONFIG, 'now', integer(now), 'wall', integer(wall))
  if config.run_id ~= run_id then
    open_recovery()
  end
end
