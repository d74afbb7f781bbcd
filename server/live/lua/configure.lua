-- configure.lua: create a pool, or change it; a changed limit or mode takes effect in this very call.
-- KEYS     the pool's keys (prelude.lua)
-- ARGV     JSON {defaults, node, changes, epoch, actor}: what a new pool gets; what the node sets each time; what to
--          change; the epoch of a new pool; who asks for the change
-- Returns  head, then the configuration as JSON

local request = cjson.decode(ARGV[1])

local function write(fields)
  local flat = {}
  for name, value in pairs(fields) do
    config[name] = value
    flat[#flat + 1] = name
    flat[#flat + 1] = type(value) == 'number' and string.format('%.14g', value) or value
  end
  if #flat > 0 then
    redis.call('HSET', CONFIG, unpack(flat))
  end
end

-- Only what differs counts as a change.
local function differing(fields)
  local differ, names = {}, {}
  for name, value in pairs(fields) do
    if config[name] ~= value then
      differ[name] = value
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return differ, names
end

config = read_config()
local is_new = not config.epoch
if is_new then
  write(request.defaults)
  write({ epoch = request.epoch })
end
write(request.node)
start_clocks()
local differ, names = differing(request.changes)
if #names > 0 then
  write(differ)
end
if is_new or #names > 0 then
  local told = {}
  for _, name in ipairs(names) do
    told[#told + 1] = name .. '=' .. tostring(config[name])
  end
  event('pool_changed', nil, 'cause', is_new and 'created' or table.concat(told, ' '), 'actor', request.actor)
end
pump()
save()
local shown = {}
for name in pairs(request.defaults) do
  shown[name] = config[name]
end
return { head(), cjson.encode(shown) }
