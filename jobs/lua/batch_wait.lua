-- batch_wait: notes that a job waits for a batch, which is looked at after a time at the latest.
-- KEYS  1 BATCHES  2 jobs of the batch
-- ARGV  1 batch id  2 job id  3 ms
-- returns 0
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[1], 'LT', now + ARGV[3], ARGV[1])
return 0
