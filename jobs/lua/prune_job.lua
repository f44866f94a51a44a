-- prune_job: removes an ended job and all that is its own, unless it goes on again or is not old enough.
-- KEYS  1 record  2 journal  3 ENDED  4 index of all jobs  5 ended index  6 job's blobs  7 job's artifacts  8 rq job
--       9 rq executions  10 rq registry of its ending  11 FILES  12 UNNAMED  13 job's approvals
--       14 index of the tenant's approvals  15 job's open children  16 ORPHANS
--       17.. the job's artifacts, then the files it was given
-- ARGV  1 job id  2 ms that a job is kept after its end  3 the status that KEYS[5] was made for  4 number of artifacts
--       5 prefix of approvals  6.. ids of the files of KEYS
-- returns 1 removed | 0 not
local record = redis.call('HMGET', KEYS[1], 'status', 'ended_ms')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not record[2] then
  redis.call('ZREM', KEYS[3], ARGV[1])
  return 0
end
if record[1] ~= ARGV[3] or tonumber(record[2]) > now - ARGV[2] then return 0 end

-- a write that a full Redis takes too comes first, after which it takes the others
redis.call('ZREM', KEYS[3], ARGV[1])
for _, blob in ipairs(redis.call('SMEMBERS', KEYS[6])) do
  if redis.call('HINCRBY', blob, 'jobs', -1) <= 0 then redis.call('UNLINK', blob) end
end
for _, id in ipairs(redis.call('SMEMBERS', KEYS[13])) do
  redis.call('ZREM', KEYS[14], id)
  redis.call('UNLINK', ARGV[5] .. id)
end
for i = 17, #KEYS do
  local id, content = ARGV[i - 11], redis.call('HGET', KEYS[i], 'content')
  if i - 16 > tonumber(ARGV[4]) then
    if content and redis.call('HINCRBY', KEYS[i], 'jobs', -1) <= 0 then
      redis.call('HDEL', KEYS[i], 'jobs')
      redis.call('ZADD', KEYS[11], redis.call('HGET', KEYS[i], 'since_ms'), id)
    end
  elseif content then
    redis.call('SREM', content, id)
    if redis.call('EXISTS', content) == 0 then redis.call('ZADD', KEYS[12], now, content) end
    redis.call('DEL', KEYS[i])
  end
end
for _, i in ipairs({ 4, 5, 10 }) do redis.call('ZREM', KEYS[i], ARGV[1]) end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[13], KEYS[15])
redis.call('SREM', KEYS[16], ARGV[1])
return 1
