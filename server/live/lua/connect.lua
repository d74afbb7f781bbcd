-- connect.lua: make new connections the current ones of their sessions.
-- KEYS     the pool's keys (prelude.lua)
-- ARGV     per connection JSON: session_id, node, kind, tab?, attempt?, page?, visible?, token_expired?
-- Returns  head; per connection JSON {connection_id, resumed, record, admission},
--          or !unknown, !ended, !superseded, !bad_token (an expired token, away for longer than resume_s)

if not open_pool() then
  return NO_POOL
end
refuse_when_full()

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
  if is_superseded(record, item) then
    return '!superseded'
  elseif item.token_expired and away_for(record) > ms(config.resume_s) then
    return '!bad_token'
  end
end

local function register(record, item)
  set(record, 'connection', item.kind or 'ws')
  set(record, 'connection_id', next_number('connection_id'))
  set(record, 'node', item.node)
  set(record, 'tab', item.tab)
  set(record, 'attempt', item.attempt or 0)
  set(record, 'browser_seen', '1')
  set(record, 'connected_at', wall)
  if item.visible ~= nil then
    set(record, 'visible', item.visible and '1' or '0')
  end
end

return each_item(function(item)
  local record, refused = active_session(item.session_id)
  refused = refused or refusal(record, item)
  if refused then
    return refused
  end
  local resumed = record.connected_at ~= nil
  local cause = record.connection and 'replaced' or 'new'
  register(record, item)
  present(record, record.connection == 'ws' and config.alive_ttl_ms or window_ms(item.visible))
  event('connected', record, 'cause', cause, 'connection_id', record.connection_id, 'tab', record.tab or '')
  if item.page and item.page ~= record.current_page then
    set(record, 'current_page', item.page)
    event('page', record)
  end
  pump()
  return { connection_id = record.connection_id, resumed = resumed, record = record, admission = admission(record) }
end)
