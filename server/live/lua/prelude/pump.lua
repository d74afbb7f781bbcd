-- prelude/pump.lua: expire what is past its deadline, then hand free places to the ready waiters, lowest ticket first.

-- Every loop is bounded by this. Whether one stopped at its bound: the caller then runs the pump again at once.
local STEPS = 100
local more = false

-- Gives the members of `key` that are due at `latest` to `act`, the longest due first.
local function each_due(key, latest, act)
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', latest, 'WITHSCORES', 'LIMIT', 0, STEPS)
  for i = 1, #due, 2 do
    with_record(due[i], act, tonumber(due[i + 1]))
  end
  more = more or #due == 2 * STEPS
end

-- A permit, a permit in grace, or an offer is over.
local function expire_permit(record)
  if record.interview_state == 'offered' then
    return_to_line(record, record.lost_at and 'absent' or 'expired')
  elseif record.ends_at and tonumber(record.ends_at) <= now then
    release(record, 'max_length', 'max_length')
  else
    set(record, 'front_until', (record.lost_at or now) + ms(config.resume_s))
    release(record, 'expired', 'grace')
  end
end

local function expire_ticket(record)
  release(record, 'expired', 'expired')
end

-- Whether there is a free place, if need be by reclaiming the permits of the holders who are absent for longest. While
-- a lowered limit drains, one such permit may not be enough.
local function find_place()
  local reclaimable = now - ms(config.permit_grace_min_s)
  for _ = 1, STEPS do
    if redis.call('ZCARD', INTERVIEWS) < config.limit then
      return true
    end
    local absent = redis.call('ZRANGEBYSCORE', GRACE, '-inf', reclaimable, 'LIMIT', 0, 1)[1]
    if not absent then
      return false
    end
    with_record(absent, expire_permit)
  end
  more = true
  return false
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

local function admit(record, claimant)
  if record == claimant or config.offer_s == 0 then
    grant(record)
  else
    offer(record)
  end
end

-- The first half of the pump. Alone it comes before a sign of life: who shows one after the offer ran out, though no
-- tick has noticed yet, does not sit out. Returns whether places may be handed out.
local function expire()
  if is_recovering() then
    return false
  elseif config.recovery_until then
    close_recovery()
  end
  if is_overdue then
    is_overdue = false
    each_due(INTERVIEWS, now, expire_permit)
    each_due(ABSENT, now - ms(config.resume_s), expire_ticket)
    is_overdue = is_overdue or more
  end
  return config.mode == 'open'
end

-- `claimant`, if any, is granted its place at once; everybody else gets an offer.
local function pump(claimant)
  if not expire() or not is_stirred then
    return
  end
  for _ = 1, STEPS do
    local session_id = redis.call('ZRANGE', READY, 0, 0)[1]
    local is_waiting = session_id and is_ready(session_id) and not yields_to_another(session(session_id))
    if not session_id or is_waiting and not find_place() then
      is_stirred = more
      return
    elseif is_waiting then
      admit(session(session_id), claimant)
    end
  end
  more = true
end
