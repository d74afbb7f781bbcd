-- clock.lua: the one source of time, Redis's own clock. Tests put another function of this name in its place.
-- Returns  wall-clock milliseconds
local function read_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
