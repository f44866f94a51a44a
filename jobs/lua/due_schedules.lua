-- due_schedules: what a scheduler has to do, by the clock of Redis.
-- KEYS  1 SCHEDULES  2 FIRING
-- ARGV  1 most of each
-- returns {now in ms, schedules to look at, slots whose submission nobody has finished, ms until the next look (-1: none)}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local left = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])
local following = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
return { now, due, left, following[2] and math.ceil(following[2] - now) or -1 }
