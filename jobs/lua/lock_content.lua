-- lock_content: lets one pruner delete a content that no file has named for a while.
-- KEYS  1 UNNAMED  2 files of the content  3 its lock
-- ARGV  1 ms that a content stays unnamed before it goes  2 ms that the lock holds
-- returns 1 it may be deleted now | 0 not
local since = redis.call('ZSCORE', KEYS[1], KEYS[2])
local time = redis.call('TIME')
if not since or tonumber(since) > time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('ZREM', KEYS[1], KEYS[2])
  return 0
end
return redis.call('SET', KEYS[3], 1, 'NX', 'PX', ARGV[2]) and 1 or 0
