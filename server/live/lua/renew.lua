-- renew.lua: extend the deadlines of connections that a node holds.
-- KEYS     the pool's keys (prelude)
-- ARGV     session_id, connection_id for each connection
-- Returns  head; per connection 1 renewed, 0 no longer yours, 2 unknown or reaped (register it again)

local NO_LONGER_YOURS, RENEWED, REGISTER_AGAIN = 0, 1, 2

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local ttl_ms = config.alive_ttl_ms
local new_deadline = now + ttl_ms
local scores = {}

-- The TTL that was moved of a key that is another's: it goes with the deadline.
local function put_back(key, session_id)
  local at = deadline(session_id)
  redis.call('PEXPIRE', key, at and math.max(1, at - now) or 1)
end

-- The cheap form: the TTL key still holds the connection. The record is read only if it does not.
local function renew(session_id, connection_id)
  local key = alive_key(session_id)
  local holder = redis.call('GETEX', key, 'PX', ttl_ms)
  if holder == connection_id then
    return RENEWED
  elseif holder then
    put_back(key, session_id)
  end
  local current, status, last =
    unpack(redis.call('HMGET', session_key(session_id), 'connection_id', 'status', 'last_connection_id'))
  if current == connection_id then
    redis.call('SET', key, connection_id, 'PX', ttl_ms)
    return RENEWED
  elseif not status or status == 'active' and not current and tonumber(connection_id) >= tonumber(last or 0) then
    return REGISTER_AGAIN
  end
  return NO_LONGER_YOURS
end

local reply = { '' }
for i = 1, #ARGV, 2 do
  local outcome = renew(ARGV[i], ARGV[i + 1])
  reply[#reply + 1] = outcome
  if outcome == RENEWED then
    scores[#scores + 1] = new_deadline
    scores[#scores + 1] = ARGV[i]
  end
end
if #scores > 0 then
  redis.call('ZADD', ONLINE, unpack(scores))
end
save()
reply[1] = head()
return reply
