-- prune_delivery: removes a delivery that was settled long enough ago.
-- KEYS  1 delivery  2 SETTLED
-- ARGV  1 delivery id  2 ms that it is kept  3 prefix of the lists of deliveries
-- returns 1 removed | 0 not
local settled = redis.call('ZSCORE', KEYS[2], ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not settled or tonumber(settled) > now - ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner then redis.call('ZREM', ARGV[3] .. owner, ARGV[1]) end
redis.call('UNLINK', KEYS[1])
return 1
