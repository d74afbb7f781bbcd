-- prelude/permits.lua: permits, offers and the line: how a session gets, keeps, loses and passes on its standing.

local LENGTHS_KEPT = 200

-- Whether `fence`, if any, names another permit than the session's newest. One that the session had before it came into
-- the line again is as old as one with a lower fence.
local function is_stale(record, fence)
  local state = record.interview_state
  return fence and (fence ~= tonumber(record.fence) or state == 'waiting' or state == 'offered')
end

-- Where a session stands, by its state; if it has lost its connection, also where the absent ones are.
local SETS_OF_STATE = { granted = { INTERVIEWS }, offered = { INTERVIEWS, OFFERS }, waiting = { LINE, READY } }
local SET_OF_ABSENT = { granted = GRACE, waiting = ABSENT }
local FIELDS_OF_STANDING = { 'ticket', 'offer_ends_at', 'ends_at', 'sits_out', 'waiting_since' }

-- Take the session out of every set of the admission; the caller says where it goes next.
local function clear_standing(record)
  local session_id, state = record.session_id, record.interview_state
  if state == 'none' then
    return
  end
  is_stirred = true
  for _, key in ipairs(SETS_OF_STATE[state]) do
    redis.call('ZREM', key, session_id)
  end
  if record.lost_at and SET_OF_ABSENT[state] then
    redis.call('ZREM', SET_OF_ABSENT[state], session_id)
  end
  redis.call('ZREM', holding_key(record.user_id), session_id)
  for _, field in ipairs(FIELDS_OF_STANDING) do
    set(record, field, nil)
  end
end

local function end_standing(record, reason)
  if record.interview_state == 'granted' then
    set(record, 'is_in_interview', '0')
    set(record, 'interview_ended_at', wall)
  end
  clear_standing(record)
  set(record, 'interview_state', 'none')
  set(record, 'reason', reason)
end

-- When the session was here last, on the wall clock.
local function was_here_at(record)
  return record.lost_at and wall - (now - record.lost_at) or wall
end

-- Who leaves the line without an interview has waited in vain, until they left or were last here. A session that had an
-- interview before keeps the wait for that one.
local function note_vain_wait(record)
  if not record.interview_started_at then
    local waited_ms = was_here_at(record) - (record.waiting_since or wall)
    set(record, 'waited_s', string.format('%.3f', math.max(0, waited_ms) / 1000))
  end
end

-- Lengths of interviews, newest first, are what the waiting time is estimated from.
local function remember_length(record)
  redis.call('LPUSH', LENGTHS, integer(math.max(0, was_here_at(record) - record.interview_started_at)))
  redis.call('LTRIM', LENGTHS, 0, LENGTHS_KEPT - 1)
end

local function grant(record)
  local waiting_since = record.waiting_since or wall
  if record.interview_state == 'offered' then
    tally('offer_taken')
  end
  clear_standing(record)
  set(record, 'interview_state', 'granted')
  set(record, 'reason', nil)
  set(record, 'front_until', nil)
  set(record, 'fence', next_number('fence'))
  set(record, 'ends_at', config.max_interview_s > 0 and now + ms(config.max_interview_s) or nil)
  set(record, 'is_in_interview', '1')
  set(record, 'interview_started_at', wall)
  set(record, 'interview_ended_at', nil)
  set(record, 'waited_s', string.format('%.3f', math.max(0, wall - waiting_since) / 1000))
  settle(record)
  event('granted', record, 'fence', record.fence)
end

-- Reserve a place for a ready waiter. It leaves the line, but its ticket still counts in the positions of others.
local function offer(record)
  local session_id = record.session_id
  redis.call('ZREM', LINE, session_id)
  redis.call('ZREM', READY, session_id)
  redis.call('ZADD', OFFERS, record.ticket, session_id)
  set(record, 'interview_state', 'offered')
  set(record, 'offer_ends_at', now + ms(config.offer_s))
  settle(record)
  event('offered', record, 'ticket', record.ticket)
end

-- Back into the line with the ticket that it had. `sits_out`: the offer was missed, not withdrawn.
local function return_to_line(record, cause)
  local session_id = record.session_id
  redis.call('ZREM', INTERVIEWS, session_id)
  redis.call('ZREM', OFFERS, session_id)
  redis.call('ZADD', LINE, record.ticket, session_id)
  set(record, 'interview_state', 'waiting')
  set(record, 'offer_ends_at', nil)
  set(record, 'sits_out', cause ~= 'withdrawn' and '1' or nil)
  settle(record)
  event('offer_missed', record, 'ticket', record.ticket, 'cause', cause)
end

-- The lowest ticket of all, offers included, or nil.
local function lowest_ticket()
  local waiting = tonumber(redis.call('ZRANGE', LINE, 0, 0, 'WITHSCORES')[2] or nil)
  local offered = tonumber(redis.call('ZRANGE', OFFERS, 0, 0, 'WITHSCORES')[2] or nil)
  return waiting and offered and math.min(waiting, offered) or waiting or offered
end

-- Who comes back after an absence that cost the permit goes to the front.
local function new_ticket(record)
  local is_to_front = record.front_until and tonumber(record.front_until) >= now
  set(record, 'front_until', nil)
  local lowest = is_to_front and lowest_ticket()
  return lowest and lowest - 1 or next_number('ticket')
end

-- Its place in the line is one of this recovery window: no old copy has it, and its node may not have heard of it yet.
local function note_window(record)
  set(record, 'joined_in', is_recovering() and config.epoch or nil)
end

local function wait_with(record, ticket)
  redis.call('ZADD', LINE, ticket, record.session_id)
  set(record, 'interview_state', 'waiting')
  set(record, 'reason', nil)
  set(record, 'ticket', ticket)
  set(record, 'waiting_since', record.waiting_since or wall)
  note_window(record)
  settle(record)
end

-- Whatever the session holds is given up, with the event that says so; `cause` says why.
local function release(record, reason, cause)
  local state = record.interview_state
  if state == 'granted' then
    remember_length(record)
    end_standing(record, reason)
    event('released', record, 'fence', record.fence, 'cause', cause)
  elseif state == 'waiting' or state == 'offered' then
    note_vain_wait(record)
    end_standing(record, reason)
    event('left_line', record, 'cause', cause)
  end
end

---------------------------------------------------------------------------------------------------
-- The same user's other sessions

-- The user's other sessions that have a permit, an offer or a place in the line, the oldest first.
local function held_elsewhere(record)
  local held = {}
  for _, session_id in ipairs(redis.call('ZRANGE', holding_key(record.user_id), 0, -1)) do
    local other = session_id ~= record.session_id and session(session_id)
    if other and other.interview_state ~= 'none' then
      held[#held + 1] = other
    end
  end
  return held
end

-- What one session holds, another one of the same user has.
local function yield(from, to)
  end_standing(from, 'taken_over')
  event('taken_over', from, 'cause', to.session_id)
end

-- Permit, offer or ticket go from one session of a user to another; a permit under a higher fence.
local function move_standing(from, to)
  local state, ticket = from.interview_state, from.ticket
  local kept = {}
  for _, field in ipairs({ 'ticket', 'offer_ends_at', 'ends_at', 'waiting_since' }) do
    kept[field] = from[field]
  end
  local interview_started_at, waited_s = from.interview_started_at, from.waited_s
  yield(from, to)
  clear_standing(to)
  for field, value in pairs(kept) do
    set(to, field, value)
  end
  note_window(to)
  set(to, 'interview_state', state)
  set(to, 'reason', nil)
  if state == 'granted' then
    set(to, 'fence', next_number('fence'))
    set(to, 'is_in_interview', '1')
    set(to, 'interview_started_at', interview_started_at)
    set(to, 'interview_ended_at', nil)
    set(to, 'waited_s', waited_s)
    settle(to)
    event('granted', to, 'fence', to.fence, 'cause', 'taken_over')
  else
    redis.call('ZADD', state == 'offered' and OFFERS or LINE, ticket, to.session_id)
    settle(to)
    event(state, to, 'ticket', ticket, 'cause', 'taken_over')
  end
end

-- Whether the user of this waiter already has the permits and offers that one may have: two tickets of one user stand
-- in the line after Redis came back from an old copy, or after an operator allowed fewer. Then the later ticket yields;
-- but what a session holds that has lost its connection comes to this one, as with a claim.
local function yields_to_another(record)
  local most = config.permits_per_user
  if most == 0 or redis.call('ZCARD', holding_key(record.user_id)) <= most then
    return false
  end
  local served, absent = {}, nil
  for _, other in ipairs(held_elsewhere(record)) do
    if other.interview_state ~= 'waiting' then
      served[#served + 1] = other
      -- No tick may have seen yet that its deadline ran out.
      absent = absent or (other.lost_at or not is_present(other.session_id)) and other
    end
  end
  if #served < most then
    return false
  elseif absent then
    move_standing(absent, record)
  else
    yield(record, served[1])
  end
  return true
end

-- The newest session of the same user that is here while this one has lost its connection.
local function successor(record)
  if config.permits_per_user ~= 1 or is_recovering() then
    return nil
  end
  for _, session_id in ipairs(redis.call('ZREVRANGE', user_key(record.user_id), 0, 9)) do
    if session_id == record.session_id then
      return nil
    end
    local other = session(session_id)
    if other and not other.lost_at and other.interview_state == 'none' and is_present(session_id) then
      return other
    end
  end
end

---------------------------------------------------------------------------------------------------
-- Losing the connection

-- The connection was lost at `at` (by the `now` clock): a permit enters its grace, an offer is shortened, a waiter is
-- no longer ready. If the user has a newer session that is here, it takes over what this one held.
local function lose(record, at)
  if record.lost_at then
    return
  end
  set(record, 'lost_at', at)
  if record.interview_state == 'none' then
    return
  end
  local newer = successor(record)
  if newer then
    move_standing(record, newer)
    return
  end
  settle(record)
  if record.interview_state == 'granted' then
    event('grace', record, 'fence', record.fence)
  end
end

-- The deadline ran out: offline. If no loss was reported before, it happened at the deadline; the cause says so.
local function reap(record, at)
  local session_id, cause = record.session_id, record.lost_at and 'grace' or 'deadline'
  redis.call('ZREM', ONLINE, session_id)
  redis.call('DEL', alive_key(session_id))
  if record.connection then
    event('disconnected', record, 'cause', 'timeout', 'connection_id', record.connection_id)
    forget_connection(record)
  end
  lose(record, at)
  redis.call('ZADD', OFFLINE, record.lost_at, session_id)
  event('offline', record, 'cause', cause)
end

-- The deadline may have run out without a tick having seen it.
local function notice_loss(record)
  local session_id = record.session_id
  if not record.lost_at and not is_present(session_id) and not is_recovering() then
    reap(record, deadline(session_id) or now)
  end
end

---------------------------------------------------------------------------------------------------
-- Ending

-- Delete an ended session; what stays is a tombstone, so that old tokens revive nothing.
local function bury(record)
  local key = tombstone_key(record.session_id)
  redis.call('DEL', session_key(record.session_id))
  redis.call('ZREM', ENDED, record.session_id)
  make_clean({ record.session_id })
  redis.call('HSET', key, 'end_reason', record.end_reason, 'language_code', record.language_code or '')
  redis.call('PEXPIRE', key, config.tombstone_ms)
  changes[record.session_id] = nil
  records[record.session_id] = false
end

local REASON_OF_END = { completed = 'completed', kicked = 'kicked', abandoned = 'expired', cleanup = 'expired' }
local EVENT_OF_END = { completed = 'completed', kicked = 'kicked', abandoned = 'abandoned', cleanup = 'abandoned' }

local function finish(record, end_reason)
  local session_id = record.session_id
  if record.interview_state == 'granted' then
    remember_length(record)
  elseif record.interview_state ~= 'none' then
    note_vain_wait(record)
  end
  end_standing(record, REASON_OF_END[end_reason])
  redis.call('ZREM', ONLINE, session_id)
  redis.call('ZREM', OFFLINE, session_id)
  redis.call('DEL', alive_key(session_id))
  redis.call('ZREM', SESSIONS, session_id)
  redis.call('ZREM', user_key(record.user_id), session_id)
  forget_connection(record)
  set(record, 'lost_at', nil)
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
