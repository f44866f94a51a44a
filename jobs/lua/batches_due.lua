-- batches_due: takes batches that are to be looked at now; nobody else takes them for a while.
-- KEYS  1 BATCHES
-- ARGV  1 most batches  2 ms for which they are taken
-- returns their ids
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do redis.call('ZADD', KEYS[1], now + ARGV[2], id) end
return due
