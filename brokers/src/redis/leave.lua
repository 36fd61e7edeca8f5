-- Gives back all that a consumer holds, and removes it.
-- KEYS: the lanes. ARGV: group, consumer.
local group, consumer = ARGV[1], ARGV[2]
for _, lane in ipairs(KEYS) do
  local pending = redis.pcall('XPENDING', lane, group, '-', '+', 1000000, consumer)
  if not pending.err then
    for _, held in ipairs(pending) do
      local entry = redis.call('XRANGE', lane, held[1], held[1])[1]
      if entry then
        redis.call('XADD', lane, '*', unpack(entry[2]))
        redis.call('XDEL', lane, held[1])
      end
      redis.call('XACK', lane, group, held[1])
    end
    redis.call('XGROUP', 'DELCONSUMER', lane, group, consumer)
  end
end
