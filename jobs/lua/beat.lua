-- beat: renews the leases of running attempts by the clock of Redis.
-- KEYS  triples of record, rq wip, rq execution
-- ARGV  1 lease in seconds  2 lease margin in seconds  3.. member (job:token) of each triple
-- returns a list, one number for each: -1 lost, 0 renewed, 1 cancel asked for, 2 pause asked for
local now, answers = redis.call('TIME')[1], {}
for i = 3, #ARGV do
  local k = (i - 3) * 3
  local member = ARGV[i]
  local record = redis.call('HMGET', KEYS[k + 1], 'token', 'cancel', 'pause')
  if record[1] and redis.call('ZSCORE', KEYS[k + 2], member) and string.sub(member, -#record[1]) == record[1] then
    redis.call('ZADD', KEYS[k + 2], 'XX', now + ARGV[1] + ARGV[2], member)
    redis.call('HSET', KEYS[k + 3], 'last_heartbeat', now)
    redis.call('EXPIRE', KEYS[k + 3], ARGV[1] + ARGV[2] + 60)
    answers[#answers + 1] = record[2] and 1 or record[3] and 2 or 0
  else
    answers[#answers + 1] = -1
  end
end
return answers
