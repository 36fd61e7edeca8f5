-- Gives entries back: added anew at the end, since Redis has no other way that wakes who waits for them.
-- KEYS[1]: the lane. ARGV: group, ids. What was settled or deleted meanwhile is left alone.
local lane, group = KEYS[1], ARGV[1]
for i = 2, #ARGV do
  local id = ARGV[i]
  local pending = redis.pcall('XPENDING', lane, group, id, id, 1)
  local entry = redis.call('XRANGE', lane, id, id)[1]
  if not pending.err and #pending > 0 and entry then
    -- First, since a server short of memory refuses it: then the entry stays pending, and is taken over.
    redis.call('XADD', lane, '*', unpack(entry[2]))
    redis.call('XDEL', lane, id)
    redis.call('XACK', lane, group, id)
  end
end
