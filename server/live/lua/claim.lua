-- claim.lua: claim permits. A claim always joins the line, then the pump runs: nobody overtakes, no place idles.
-- KEYS     the pool's keys (prelude.lua)
-- ARGV     per claim JSON: session_id, wait? (default true), sign_of_life?
-- Returns  head; per claim JSON, the session's standing, also `denied` with its reason; or !unknown

if not open_pool() then
  return NO_POOL
end
refuse_when_full()

local function denied(reason)
  return { state = 'denied', reason = reason, waiting = redis.call('ZCARD', LINE) }
end

-- How many permits and places the user's other sessions have.
local function held_elsewhere(record)
  local held = 0
  for _, session_id in ipairs(redis.call('ZRANGE', user_key(record.user_id), 0, -1)) do
    local is_other = session_id ~= record.session_id
    if is_other and (redis.call('ZSCORE', INTERVIEWS, session_id) or redis.call('ZSCORE', LINE, session_id)) then
      held = held + 1
    end
  end
  return held
end

-- Join and pump; who is not let in at once and may not wait leaves without a trace.
local function try(record, item)
  join_line(record)
  pump()
  if record.interview_state == 'granted' then
    return admission(record)
  end
  local reason
  if item.wait == false or config.max_line == 0 then
    reason = 'at_capacity'
  elseif redis.call('ZCARD', LINE) > config.max_line then
    reason = 'line_full'
  end
  if reason then
    quit_line(record)
    return denied(reason)
  end
  event('waiting', record)
  return admission(record)
end

return each_item(function(item)
  local record = session(item.session_id)
  if not record then
    local absent = absence(item.session_id)
    return absent == '!unknown' and absent or denied('ended')
  elseif record.status ~= 'active' then
    return denied('ended')
  end
  if item.sign_of_life then
    sign_of_life(record)
  end
  pump()
  if record.interview_state == 'granted' or record.interview_state == 'waiting' then
    return admission(record)
  elseif config.mode == 'closed' then
    return denied('closed')
  elseif config.permits_per_user > 0 and held_elsewhere(record) >= config.permits_per_user then
    return denied('elsewhere')
  end
  return try(record, item)
end)
