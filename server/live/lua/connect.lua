-- connect.lua: make new connections the current ones of their sessions; after Redis lost its memory, also register
-- again the connections and sessions that nodes and pages remember.
-- KEYS     the pool's keys (prelude)
-- ARGV     per connection JSON: session_id, node, kind?, tab?, attempt?, page?, visible?, token_expired?,
--          connection_id? (a node registers this connection again),
--          known? {user_id, started_at, language_code?, fence?, holds?, ticket?}: what the node or the token knows
-- Returns  head; per connection JSON {connection_id, resumed, record, admission}, or !unknown, !ended, !superseded,
--          !stale_connection, !bad_token (an expired token, away for longer than resume_s)

if not open_pool() then
  return NO_POOL
end
begin_adding()

local function away_for(record)
  if record.lost_at then
    return now - record.lost_at
  end
  local at = deadline(record.session_id)
  return at and math.max(0, now - at) or 0
end

-- A hello that was under way for longer than a newer one of the same tab.
local function is_superseded(record, item)
  return record.connection and item.tab and record.tab == item.tab
    and (item.attempt or 0) < tonumber(record.attempt or 0)
end

local function refusal(record, item)
  if item.connection_id then
    local newest = tonumber(record.last_connection_id or 0)
    return tonumber(item.connection_id) < newest and '!stale_connection' or nil
  elseif is_superseded(record, item) then
    return '!superseded'
  elseif item.token_expired and away_for(record) > ms(config.resume_s) then
    return '!bad_token'
  end
end

---------------------------------------------------------------------------------------------------
-- Recovery

-- A connection that a node holds always is; a page alone only in the window, or if a permit or place is at stake.
local function may_be_remembered(item)
  local known = item.known
  return known and not item.token_expired
    and (item.connection_id or is_recovering() or known.fence or known.ticket)
end

-- A session that Redis has forgotten, but a node or a token has not. Once the window is closed, others may have the
-- place: then all that is left of it is the front of the line.
local function remembered(item)
  local known = item.known
  sweep(item.session_id)
  local record = new_session(item.session_id, known.user_id, known.started_at)
  set(record, 'language_code', known.language_code)
  if not is_recovering() and (known.fence or known.ticket) then
    set(record, 'front_until', now + ms(config.resume_s))
  end
  return record
end

-- Of several permits of a person who may have one, that with the highest fence is the newest: it moved since the copy was
-- made. A place in the line from before it led to it. Returns whether this permit is the newest.
local function outranks_others(record, fence)
  if config.permits_per_user ~= 1 then
    return true
  end
  local older = {}
  for _, other in ipairs(held_elsewhere(record)) do
    local number = tonumber(other.ticket or other.fence)
    if number <= fence then
      older[#older + 1] = other
    elseif other.interview_state == 'granted' then
      return false
    end
  end
  for _, other in ipairs(older) do
    yield(other, record)
  end
  return true
end

-- Whether the other session of the same user has what came of the ticket: the ticket itself, or a newer permit.
local function has_moved_to(other, ticket, is_from_node)
  if other.interview_state == 'granted' then
    return not is_from_node and config.permits_per_user == 1 and tonumber(other.fence) >= ticket
  end
  return tonumber(other.ticket) == ticket
end

-- A ticket is one session's. If another one of the user has it, it moved: whose connection a node holds has it now.
local function owns_ticket(record, ticket, is_from_node)
  for _, other in ipairs(held_elsewhere(record)) do
    if has_moved_to(other, ticket, is_from_node) then
      if not is_from_node then
        return false
      end
      yield(other, record)
    end
  end
  return true
end

local function adopt_permit(record, known)
  clear_standing(record)
  local started_at = record.interview_started_at or wall
  set(record, 'interview_state', 'granted')
  set(record, 'reason', nil)
  set(record, 'fence', known.fence)
  set(record, 'is_in_interview', '1')
  set(record, 'interview_started_at', started_at)
  set(record, 'interview_ended_at', nil)
  set(record, 'ends_at', config.max_interview_s > 0 and now + ms(config.max_interview_s) - (wall - started_at) or nil)
  settle(record)
  event('granted', record, 'fence', record.fence, 'cause', 'recovered')
end

local function adopt_ticket(record, ticket)
  clear_standing(record)
  wait_with(record, ticket)
  event('waiting', record, 'ticket', record.ticket, 'cause', 'recovered')
end

-- Bring the session to the standing that is remembered. The highest fence wins over whatever Redis holds; of the same
-- fence whoever says that the permit is gone, since that came after the grant. A node, which has the connection, also
-- knows better than an old copy which ticket it is, or that the line was left.
local function adopt(record, known, is_from_node)
  outgrow('fence', known.fence)
  outgrow('ticket', known.ticket)
  local fence, known_fence = tonumber(record.fence or 0), known.fence or 0
  if known.holds then
    if known_fence > fence and outranks_others(record, known_fence) then
      adopt_permit(record, known)
    end
    return
  end
  if record.interview_state == 'granted' and known_fence >= fence and is_from_node then
    release(record, 'released', 'recovered')
  end
  local state = record.interview_state
  local is_in_line = state == 'waiting' or state == 'offered'
  if is_in_line and not known.ticket and is_from_node and record.joined_in ~= config.epoch then
    release(record, 'released', 'recovered')
  end
  local is_moved = state == 'waiting' and known.ticket ~= tonumber(record.ticket) and is_from_node
  if known.ticket and (state == 'none' or is_moved) and owns_ticket(record, known.ticket, is_from_node) then
    adopt_ticket(record, known.ticket)
  end
end

---------------------------------------------------------------------------------------------------

local function register(record, item)
  outgrow('connection_id', tonumber(item.connection_id))
  set(record, 'connection', item.kind or 'ws')
  set(record, 'connection_id', item.connection_id or next_number('connection_id'))
  set(record, 'last_connection_id', record.connection_id)
  set(record, 'node', item.node)
  set(record, 'tab', item.tab)
  set(record, 'attempt', item.attempt or 0)
  set(record, 'browser_seen', '1')
  set(record, 'connected_at', wall)
end

return each_item(function(item)
  local record, refused = active_session(item.session_id)
  if refused == '!unknown' and may_be_remembered(item) then
    record, refused = remembered(item), nil
  end
  refused = refused or refusal(record, item)
  if refused then
    return refused
  end
  local resumed = record.connected_at ~= nil
  local cause = record.connection and 'replaced' or 'new'
  register(record, item)
  present(record, record.connection == 'ws' and config.alive_ttl_ms or window_ms(item.visible))
  expire()
  see(record, item.visible)
  if item.known and is_recovering() then
    adopt(record, item.known, item.connection_id ~= nil)
  end
  event('connected', record, 'cause', cause, 'connection_id', record.connection_id, 'tab', record.tab or '')
  go_to_page(record, item.page)
  pump()
  return { connection_id = record.connection_id, resumed = resumed, record = record, admission = admission(record) }
end)
