-- Counts a request under KEYS[1], of which one comes every ARGV[1] microseconds, and ARGV[2] microseconds' worth at once.
-- Answers how far ahead of now it was expected; what that means, whoever asks works out in the same way (gcra.rs).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local expected = tonumber(redis.call('GET', KEYS[1]) or now)
-- Not further ahead than a rate allows: there may have been another one, or another time.
expected = math.min(math.max(expected, now), now + most)
local ahead = expected - now
if ahead + interval <= most then
  redis.call('SET', KEYS[1], string.format('%.0f', expected + interval), 'PX', math.ceil((ahead + interval) / 1000))
end
return ahead
