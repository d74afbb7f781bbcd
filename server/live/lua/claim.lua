-- claim.lua: claim permits. A claim always joins the line, then the pump runs: nobody overtakes, no place idles.
-- KEYS     the pool's keys (prelude)
-- ARGV     per claim JSON: session_id, wait? (default true), takeover?, accept? (only an offer), sign_of_life?
-- Returns  head; per claim JSON, the session's standing, also `denied` with its reason; or !unknown

if not open_pool() then
  return NO_POOL
end
begin_adding()

local function denied(reason, record)
  tally('denied:' .. reason)
  return {
    state = 'denied',
    reason = reason,
    waiting = redis.call('ZCARD', LINE) + redis.call('ZCARD', OFFERS),
    language_code = record and record.language_code,
  }
end

local function take_offer(record)
  if record.interview_state == 'offered' and not is_recovering() then
    grant(record)
  end
end

-- Join and pump; who is not let in at once and may not wait leaves without a trace.
local function try(record, item)
  local front_until, past = record.front_until, record.reason
  wait_with(record, new_ticket(record))
  pump(record)
  if record.interview_state ~= 'waiting' then
    return admission(record)
  end
  local reason
  if item.wait == false or config.max_line == 0 then
    reason = 'at_capacity'
  elseif redis.call('ZCARD', LINE) + redis.call('ZCARD', OFFERS) > config.max_line then
    reason = 'line_full'
  end
  if reason then
    end_standing(record, past)
    set(record, 'front_until', front_until)
    return denied(reason, record)
  end
  event('waiting', record, 'ticket', record.ticket)
  return admission(record)
end

-- What another session of the user holds comes to this one, if the person says so or the other has lost its
-- connection, and this one has not: a permit does not move to where nobody is. Returns whether the user may hold no more.
local function is_held_elsewhere(record, takeover)
  if config.permits_per_user == 0 then
    return false
  end
  local others = held_elsewhere(record)
  if #others < config.permits_per_user then
    return false
  end
  for _, other in ipairs(others) do
    if not record.lost_at and (takeover or other.lost_at) then
      move_standing(other, record)
      pump(record)
      take_offer(record)
      break
    end
  end
  return true
end

local function claim(record, item)
  if item.accept then
    take_offer(record)
    return admission(record)
  end
  expire()
  show_life(record)
  pump(record)
  take_offer(record)
  if record.interview_state ~= 'none' then
    return admission(record)
  elseif config.mode == 'closed' then
    return denied('closed', record)
  end
  notice_loss(record)
  if is_held_elsewhere(record, item.takeover) then
    return record.interview_state ~= 'none' and admission(record) or denied('elsewhere', record)
  end
  return try(record, item)
end

return each_item(function(item)
  local record = session(item.session_id)
  if not record then
    local left = tombstone(item.session_id)
    return left and denied('ended', left) or '!unknown'
  elseif record.status ~= 'active' then
    return denied('ended', record)
  end
  if item.sign_of_life then
    sign_of_life(record)
  end
  return claim(record, item)
end)
