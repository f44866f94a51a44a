-- flag: asks a running attempt to cancel or to pause.
-- KEYS  1 record
-- ARGV  1 'cancel' | 'pause'
-- returns {1, worker} | {0, status}
local record = redis.call('HMGET', KEYS[1], 'status', 'worker')
if record[1] ~= 'running' then return { 0, record[1] or '' } end
redis.call('HSET', KEYS[1], ARGV[1], 1)
return { 1, record[2] or '' }
