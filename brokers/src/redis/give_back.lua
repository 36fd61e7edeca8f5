-- Gives entries back: added anew at the end, since Redis has no other way that wakes who waits for them.
-- KEYS[1]: the lane. ARGV: group, ids. What was settled or deleted meanwhile is left alone.
for i = 2, #ARGV do
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
    if entry then
      redis.call('XADD', KEYS[1], '*', unpack(entry[2]))
      redis.call('XDEL', KEYS[1], ARGV[i])
    end
  end
end
