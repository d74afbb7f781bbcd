-- flush_take.lua: read the rows of dirty sessions, the longest dirty first. They stay dirty until acked.
-- KEYS     the pool's keys (prelude)
-- ARGV     how many of them to pass over, how many to read at most
-- Returns  head; how many more there were that have no record any more; the receipt for flush_ack.lua; an array of
--          rows, each as a line (prelude/records.lua)

if not open_pool() then
  return NO_POOL
end
begin_freeing()

local from, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local session_ids, marks, rows, gone = {}, {}, {}, {}

-- What stands behind the mark of the present state; nil if it is that of another.
local function behind_mark(row, mark)
  local at = #mark + 1
  return row and string.sub(row, 1, at) == mark .. SEPARATOR and string.sub(row, at + 1) or nil
end

-- A row that was left to be made now, or that a node of another version or somebody by hand did not keep.
local function made_anew(session_id, mark)
  local record = session(session_id)
  if record then
    return behind_mark(keep_row(record, mark), mark)
  end
end

local members, scores = {}, {}
for i, value in ipairs(redis.call('ZRANGE', DIRTY, from, from + count - 1, 'WITHSCORES')) do
  local list = i % 2 == 1 and members or scores
  list[#list + 1] = value
end
for i, kept in ipairs(#members > 0 and redis.call('HMGET', ROWS, unpack(members)) or {}) do
  local row = behind_mark(kept, scores[i]) or made_anew(members[i], scores[i])
  if row then
    local number = #rows + 1
    session_ids[number], marks[number], rows[number] = members[i], scores[i], row
  else
    gone[#gone + 1] = members[i]
  end
end
if #gone > 0 then
  -- Nothing is left to write; kept, they would stand in the way of those behind them.
  make_clean(gone)
end

return { head(), #gone, cmsgpack.pack({ config.epoch, session_ids, marks }), rows }
