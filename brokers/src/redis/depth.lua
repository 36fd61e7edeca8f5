-- What waits: all that is there but what someone holds. KEYS[1]: the lane. ARGV[1]: the group.
local all = redis.call('XLEN', KEYS[1])
local held = redis.pcall('XPENDING', KEYS[1], ARGV[1])
-- Without a group, nobody holds anything.
if held.err then return all end
-- What is held may have been deleted by somebody else.
return math.max(0, all - held[1])
