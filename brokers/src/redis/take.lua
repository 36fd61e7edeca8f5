-- Takes entries for a consumer: from each lane its share, and what the lanes before it have left of theirs.
-- KEYS: the lanes. ARGV: group, consumer, how long in milliseconds an entry was left idle by a consumer that must be
-- dead, 0 not to look for such; then the share of each lane. Answers with a list for each lane.
local group, consumer, idle = ARGV[1], ARGV[2], tonumber(ARGV[3])
local taken, count, room = {}, 0, 0

-- An error after a lane that gave something must not lose what it gave.
local function attempt(lane, ...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err and string.find(answer.err, 'NOGROUP', 1, true) then
    local made = redis.pcall('XGROUP', 'CREATE', lane, group, '0', 'MKSTREAM')
    if made.err then return made end
    answer = redis.pcall(...)
  end
  return answer
end

for place, lane in ipairs(KEYS) do
  local found = {}
  room = room + tonumber(ARGV[3 + place])
  if idle > 0 and room > 0 then
    local cursor = '0-0'
    repeat
      local claimed = attempt(lane, 'XAUTOCLAIM', lane, group, consumer, idle, cursor, 'COUNT', room - #found)
      if claimed.err then break end
      cursor = claimed[1]
      for _, entry in ipairs(claimed[2]) do
        if entry then found[#found + 1] = entry end
      end
    until cursor == '0-0' or #found >= room
    -- Only here, where nothing can come between the look and the deletion, which drops what is pending.
    local consumers = redis.pcall('XINFO', 'CONSUMERS', lane, group)
    for _, other in ipairs(consumers) do
      local name, pending, silent = other[2], other[4], other[6]
      if name ~= consumer and pending == 0 and silent > idle then
        redis.call('XGROUP', 'DELCONSUMER', lane, group, name)
      end
    end
  end
  if #found < room then
    local read =
      attempt(lane, 'XREADGROUP', 'GROUP', group, consumer, 'COUNT', room - #found, 'STREAMS', lane, '>')
    if read and read.err then
      if count + #found == 0 then return read end
    elseif read then
      for _, entry in ipairs(read[1][2]) do found[#found + 1] = entry end
    end
  end
  taken[place] = found
  count = count + #found
  room = room - #found
end
return taken
