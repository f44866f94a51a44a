-- redeliver: lets a delivery be made again, from its first try on; one that waits for its next try is made now.
-- KEYS  1 delivery  2 lane  3 busy deliveries of the lane  4 LANES  5 SETTLED
-- ARGV  1 delivery id  2 name of the lane
-- returns 1 | 0 there is no such delivery, or it is being made
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local busy = redis.call('ZSCORE', KEYS[3], ARGV[1])
if busy and tonumber(busy) > now then return 0 end
redis.call('HSET', KEYS[1], 'status', 'pending', 'tries', 0, 'due_ms', now)
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[4], 'LT', now, ARGV[2])
return 1
