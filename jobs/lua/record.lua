-- record: appends journal entries of a running attempt, fenced by its token; a repeated write changes nothing.
-- KEYS  1 record  2 journal  3 job's blobs  4.. blobs that the entries refer to
-- ARGV  1 token  2 number of this write within the attempt, from 1  3 channel  4 number of counters n,
--       then n pairs of record field and increment, then pairs of entry type and data, then each blob's content
-- returns -1 stale | flags: 0 none, 1 cancel asked for, 2 pause asked for
local record = redis.call('HMGET', KEYS[1], 'token', 'writes', 'attempt', 'cancel', 'pause')
if record[1] ~= ARGV[1] then return -1 end
local flags = record[4] and 1 or record[5] and 2 or 0
if tonumber(ARGV[2]) <= tonumber(record[2]) then return flags end
redis.call('HSET', KEYS[1], 'writes', ARGV[2])
local first = 5 + 2 * ARGV[4]
for i = 5, first - 1, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
local blobs = #ARGV - (#KEYS - 3)
for i = 4, #KEYS do
  if redis.call('SADD', KEYS[3], KEYS[i]) == 1 then redis.call('HINCRBY', KEYS[i], 'jobs', 1) end
  redis.call('HSETNX', KEYS[i], 'data', ARGV[blobs + i - 3])
end
for i = first, blobs, 2 do
  redis.call('XADD', KEYS[2], '*', 't', ARGV[i], 'a', record[3], 'd', ARGV[i + 1])
end
redis.call('PUBLISH', ARGV[3], '')
return flags
