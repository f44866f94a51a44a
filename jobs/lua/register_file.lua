-- register_file: gives a content that was announced a file's record; a file that is registered again gets a new content.
-- KEYS  1 file  2 FILES  3 UNNAMED  4 files of the content  5 the content's lock  6 job's artifacts
--       7 record of the job that an artifact belongs to
-- ARGV  1 file id  2 record  3 '1' for an artifact  4 token of the attempt that keeps it ('' for none)
-- returns 'kept' | 'gone' the content was deleted meanwhile | 'pruned' the job is no more | 'stale'
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[7]) == 0 then return 'pruned' end
if ARGV[4] ~= '' and redis.call('HGET', KEYS[7], 'token') ~= ARGV[4] then return 'stale' end
local announced = redis.call('ZSCORE', KEYS[3], KEYS[4]) or redis.call('EXISTS', KEYS[4]) == 1
if not announced or redis.call('EXISTS', KEYS[5]) == 1 then return 'gone' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('HGET', KEYS[1], 'content')
if before and before ~= KEYS[4] then
  redis.call('SREM', before, ARGV[1])
  if redis.call('EXISTS', before) == 0 then redis.call('ZADD', KEYS[3], now, before) end
end
redis.call('HSET', KEYS[1], 'record', ARGV[2], 'content', KEYS[4], 'since_ms', now)
redis.call('SADD', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[3], KEYS[4])
if ARGV[3] == '1' then redis.call('SADD', KEYS[6], ARGV[1]) else redis.call('ZADD', KEYS[2], now, ARGV[1]) end
return 'kept'
