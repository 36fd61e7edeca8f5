-- Settles entries for good. At once, since an entry that is settled and not deleted would count as waiting for ever;
-- and as a script, since a server short of memory refuses transactions.
-- KEYS[1]: the lane. ARGV: group, ids.
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 2))
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
