-- configure.lua: create a pool, or change it; a changed limit or mode takes effect in this very call.
-- KEYS     the pool's keys (prelude)
-- ARGV     JSON {defaults, node, changes, actor, salt, memory?}: what a new pool gets; what the node sets each time; what
--          to change; who asks; something random for the epoch; the configuration that the node remembers, with its changed_at
-- Returns  head, then the configuration as JSON

local request = cjson.decode(ARGV[1])
local NOT_SET = cjson.null

local function write(fields)
  local flat = {}
  for name, value in pairs(fields) do
    if value ~= NOT_SET then
      config[name] = value
      flat[#flat + 1] = name
      flat[#flat + 1] = type(value) == 'number' and string.format('%.14g', value) or value
    end
  end
  if #flat > 0 then
    redis.call('HSET', CONFIG, unpack(flat))
  end
end

-- Only what is set and differs counts as a change.
local function differing(fields)
  local differ, names = {}, {}
  for name, value in pairs(fields) do
    if value ~= NOT_SET and config[name] ~= value then
      differ[name] = value
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return differ, names
end

local function tell_change(names)
  local told = {}
  for _, name in ipairs(names) do
    told[#told + 1] = name .. '=' .. tostring(config[name])
  end
  event('pool_changed', nil, 'cause', table.concat(told, ' '), 'actor', request.actor)
end

local function change(fields, changed_at)
  local differ, names = differing(fields)
  if #names > 0 then
    write(differ)
    write({ changed_at = changed_at })
    tell_change(names)
  end
end

-- An app declares the limit each time it starts. Only another one than it declared last sets the limit, so that what an
-- operator set since then stays; a limit that is named beside it is the newer word.
local function heed_declaration(changes)
  local declared = changes.declared_limit
  if declared and declared ~= config.declared_limit and not changes.limit then
    changes.limit = declared
  end
end

-- While nobody may enter, no place is reserved.
local function withdraw_offers()
  for _, session_id in ipairs(redis.call('ZRANGE', OFFERS, 0, -1)) do
    with_record(session_id, return_to_line, 'withdrawn')
  end
end

local is_known = open_pool()
if is_known then
  begin_freeing()
  -- Without history no rows are kept, and those that are there fall behind.
  if config.history ~= request.node.history then
    redis.call('DEL', ROWS)
  end
  write(request.node)
else
  config = {}
  write(request.defaults)
  write(request.node)
  write({ epoch = '' })
  open_pool()
  open_recovery(request.salt)
  event('pool_changed', nil, 'cause', 'created', 'actor', request.actor)
end
-- After Redis lost its memory, the newest configuration that any node remembers wins.
if request.memory and (not is_known or request.memory.changed_at > (config.changed_at or 0)) then
  change(request.memory.config, request.memory.changed_at)
end
heed_declaration(request.changes)
-- A change is newer than any before it, also if the clock was set back since.
change(request.changes, math.max((config.changed_at or 0) + 1, wall))
if config.mode ~= 'open' then
  withdraw_offers()
end
pump()
save()
local shown = { changed_at = config.changed_at or 0 }
for name in pairs(request.defaults) do
  shown[name] = config[name]
end
return { head(), cjson.encode(shown) }
