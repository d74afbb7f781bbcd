-- prelude/presence.lua: who is here: the `alive:` TTL key and the `online` sorted set, always written together.

local HIDDEN_WINDOW_MS = 150000
local NO_CONNECTION = '-'

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

-- Until when the session holds its permit or offer, as things are now.
local function permit_deadline(record)
  if record.interview_state == 'offered' then
    local ends_at = tonumber(record.offer_ends_at)
    return record.lost_at and math.min(ends_at, record.lost_at + ms(config.grace_s)) or ends_at
  end
  local ends_at = tonumber(record.ends_at) or NEVER
  return record.lost_at and math.min(ends_at, record.lost_at + ms(config.permit_grace_max_s)) or ends_at
end

-- Put the session into the sorted sets where its state and its presence say that it belongs. A waiter is ready
-- while it is present, not in grace, and not sitting out a missed offer.
local function settle(record)
  local session_id, state = record.session_id, record.interview_state
  is_stirred = true
  if state ~= 'none' then
    redis.call('ZADD', holding_key(record.user_id), record.started_at, session_id)
  end
  if state == 'granted' or state == 'offered' then
    local ends_at = permit_deadline(record)
    is_overdue = is_overdue or ends_at <= now
    redis.call('ZADD', INTERVIEWS, ends_at, session_id)
    if state == 'granted' and record.lost_at then
      redis.call('ZADD', GRACE, record.lost_at, session_id)
    end
  elseif state == 'waiting' then
    if record.lost_at then
      is_overdue = is_overdue or record.lost_at + ms(config.resume_s) <= now
      redis.call('ZADD', ABSENT, record.lost_at, session_id)
    end
    if record.lost_at or record.sits_out then
      redis.call('ZREM', READY, session_id)
    else
      redis.call('ZADD', READY, record.ticket, session_id)
    end
  end
end

-- The session is present (again) for ttl_ms, and so out of any grace.
local function present(record, ttl_ms)
  keep_alive(record, ttl_ms)
  set(record, 'last_seen', wall)
  if record.lost_at then
    set(record, 'lost_at', nil)
    redis.call('ZREM', OFFLINE, record.session_id)
    redis.call('ZREM', record.interview_state == 'waiting' and ABSENT or GRACE, record.session_id)
    settle(record)
  end
end

-- A visible page or an explicit claim: who missed an offer is ready again.
local function show_life(record)
  if record.sits_out then
    set(record, 'sits_out', nil)
    settle(record)
  end
end

local function see(record, visible)
  if visible ~= nil then
    set(record, 'visible', visible and '1' or '0')
    if visible then
      show_life(record)
    end
  end
end

local function go_to_page(record, page)
  if page and page ~= record.current_page then
    set(record, 'current_page', page)
    event('page', record)
  end
end

-- Opening, claiming and polling with the API key count until the session's browser has been seen.
local function sign_of_life(record)
  if record.browser_seen ~= '1' then
    present(record, window_ms())
  end
end

local function forget_connection(record)
  set(record, 'connection', nil)
  set(record, 'connection_id', nil)
  set(record, 'node', nil)
end
