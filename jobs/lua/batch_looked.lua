-- batch_looked: what follows from a look at a batch. When it has ended, jobs that wait for it need wait no longer.
-- The batch is forgotten when no job waits for it any more.
-- KEYS  1 BATCHES  2 jobs of the batch  3 DUE
-- ARGV  1 batch id  2 '1': it has ended  3 ms until the next look  4 ended statuses (JSON object)  5 prefix of records
-- returns {ids of the queued jobs that need wait no longer, number of jobs that still wait}
local ended, woken, waiting = cjson.decode(ARGV[4]), {}, 0
for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local status = redis.call('HGET', ARGV[5] .. id, 'status')
  -- an attempt that runs may be just about to wait, and one that begins later finds out by itself
  if status and not ended[status] and (ARGV[2] ~= '1' or status == 'running') then
    waiting = waiting + 1
  else
    redis.call('SREM', KEYS[2], id)
    if status == 'queued' then
      redis.call('ZREM', KEYS[3], id)
      table.insert(woken, id)
    end
  end
end
if waiting == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[1])
end
return { woken, waiting }
