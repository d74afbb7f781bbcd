-- prelude/replies.lua: what the verbs answer.

-- A position counts the whole line, with those who have an offer: it never grows when an offer is missed.
local function position(record)
  local ahead = redis.call('ZRANK', LINE, record.session_id) or 0
  return ahead + redis.call('ZCOUNT', OFFERS, '-inf', '(' .. record.ticket) + 1
end

-- A session's standing: the interview object without its sentence.
local function admission(record)
  local state = record.interview_state
  local view = { state = state, language_code = record.language_code }
  if state == 'granted' then
    view.fence = tonumber(record.fence)
    view.ends_in_ms = record.ends_at and math.max(0, record.ends_at - now) or nil
  elseif state == 'waiting' then
    view.ticket = tonumber(record.ticket)
    view.position = position(record)
    view.waiting = redis.call('ZCARD', LINE) + redis.call('ZCARD', OFFERS)
  elseif state == 'offered' then
    view.ticket = tonumber(record.ticket)
    view.offer_expires_in_ms = math.max(0, permit_deadline(record) - now)
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
    recovering = is_recovering(),
  })
end

-- How a session ended that has no record any more: end_reason and language_code; or nil.
local function tombstone(session_id)
  local end_reason, language_code =
    unpack(redis.call('HMGET', tombstone_key(session_id), 'end_reason', 'language_code'))
  return end_reason and { end_reason = end_reason, language_code = language_code ~= '' and language_code or nil } or nil
end

-- Why a session without a record cannot be used: unknown, or ended some time ago.
local function absence(session_id)
  local left = tombstone(session_id)
  return left and '!ended ' .. left.end_reason or '!unknown'
end

-- The standing of a session that has ended; `ended` is its record or its tombstone.
local function standing_after(ended)
  return { state = 'none', reason = REASON_OF_END[ended.end_reason], language_code = ended.language_code }
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

local function seen(record)
  return { record = record, admission = admission(record), online = is_present(record.session_id) }
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
  if next(changes) or next(counted) or next(tallied) then
    save()
  end
  local reply = { head() }
  for i = 1, #ARGV do
    local answer = answers[i]
    reply[i + 1] = type(answer) == 'table' and cjson.encode(answer) or answer
  end
  return reply
end
