-- flush_ack.lua: rows are committed. Clean is what has not changed since it was taken.
-- KEYS     the pool's keys (prelude)
-- ARGV     the receipt of flush_take.lua; MessagePack: an array of those of its session ids that were not committed
-- Returns  head; how many are clean now

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local epoch, session_ids, marks = unpack(cmsgpack.unpack(ARGV[1]))
-- A Redis that lost its memory in between may have given the same score to another change.
if epoch ~= config.epoch or #session_ids == 0 then
  return { head(), 0 }
end

local is_uncommitted = {}
for _, session_id in ipairs(cmsgpack.unpack(ARGV[2])) do
  is_uncommitted[session_id] = true
end
local clean = {}
for i, mark in ipairs(redis.call('ZMSCORE', DIRTY, unpack(session_ids))) do
  if mark == marks[i] and not is_uncommitted[session_ids[i]] then
    clean[#clean + 1] = session_ids[i]
  end
end
if #clean > 0 then
  local ends = redis.call('EXISTS', ENDED) == 1 and redis.call('ZMSCORE', ENDED, unpack(clean)) or {}
  for i, session_id in ipairs(clean) do
    if ends[i] then
      with_record(session_id, bury)
    end
  end
  make_clean(clean)
end
return { head(), #clean }
