-- prune_file: removes an uploaded file's record that no job names, when it is old enough.
-- KEYS  1 file  2 FILES  3 UNNAMED
-- ARGV  1 file id  2 ms that a file is kept
-- returns 1 removed | 0 not
local since = redis.call('ZSCORE', KEYS[2], ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not since or tonumber(since) > now - ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
local content = redis.call('HGET', KEYS[1], 'content')
if not content then return 0 end
redis.call('SREM', content, ARGV[1])
if redis.call('EXISTS', content) == 0 then redis.call('ZADD', KEYS[3], now, content) end
redis.call('DEL', KEYS[1])
return 1
