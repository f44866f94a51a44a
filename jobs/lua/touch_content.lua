-- touch_content: announces that a content is about to be written and named, so that no pruner takes it away.
-- KEYS  1 UNNAMED  2 files of the content  3 its lock
-- ARGV  none
-- returns 1 announced | 0 it is being deleted at this moment
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000), KEYS[2])
return 1
