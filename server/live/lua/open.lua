-- open.lua: open sessions, or resume those that their users had.
-- KEYS     the pool's keys (prelude)
-- ARGV     per session JSON: session_id, user_id, given?, language_code?, current_page?, metadata?
-- Returns  head; per session JSON {session_id, resumed, record, admission}, or !session_id_taken

local MOST_SESSIONS_LOOKED_AT = 10

if not open_pool() then
  return NO_POOL
end
begin_adding()

-- Whether the session may be resumed by its user: not ended, without a WebSocket, and not away for too long.
local function is_resumable(record)
  if not record or record.status ~= 'active' then
    return false
  end
  local at = deadline(record.session_id)
  local is_here = at and at > now
  if is_here and record.connection == 'ws' then
    return false
  end
  local lost_at = record.lost_at or (not is_here and at) or now
  return now - lost_at <= ms(config.resume_s)
end

local function earlier_session(user_id)
  if config.resume_s <= 0 then
    return nil
  end
  local ids = redis.call('ZREVRANGE', user_key(user_id), 0, MOST_SESSIONS_LOOKED_AT - 1)
  for _, session_id in ipairs(ids) do
    local record = session(session_id)
    if is_resumable(record) then
      return record
    end
  end
end

-- The session that was asked for by its id, or nil if it is to be started (anew).
local function given_session(item)
  local record = session(item.session_id)
  if record and record.status ~= 'active' then
    return nil
  elseif record and record.user_id ~= item.user_id then
    return nil, '!session_id_taken'
  end
  return record
end

local function update(record, item)
  for _, field in ipairs({ 'language_code', 'current_page', 'metadata' }) do
    if item[field] then
      set(record, field, item[field])
    end
  end
end

return each_item(function(item)
  local record, refused
  if item.given then
    record, refused = given_session(item)
  else
    record = earlier_session(item.user_id)
  end
  if refused then
    return refused
  end
  local resumed = record ~= nil
  if item.given and not session(item.session_id) then
    sweep(item.session_id)
  end
  record = record or new_session(item.session_id, item.user_id, wall)
  if resumed then
    notice_loss(record)
  end
  update(record, item)
  if not record.connection then
    set(record, 'browser_seen', nil)
    sign_of_life(record)
  end
  event(resumed and 'session_resumed' or 'session_started', record)
  pump()
  return { session_id = record.session_id, resumed = resumed, record = record, admission = admission(record) }
end)
