-- push_ticket: puts an RQ ticket of a queued job into its queue, unless the job may not run yet. The ticket of a job that
-- a kill switch stops goes to those that the switch withholds.
-- prelude: switches
-- KEYS  1 record  2 rq queue  3 rq job  4 rq queues  5 session's jobs  6 wake list  7 DUE  8 side queue of the job's
--       agent version  9 KILL_SWITCH  10 DEAD_LETTERS
-- ARGV  1 job id  2 queue name  3 time as RQ writes it  4 serialised call  5 'front' | 'back'
--       6 '1': look for an earlier ticket first; a fresh job has none  7 most elements of the wake list
--       8 prefix of the tickets that a switch withholds
-- returns 1 pushed | 0 not queued, not due, behind another job of its session, or already there
local record = redis.call('HMGET', KEYS[1], 'status', 'session_id', 'tenant', 'agent', 'agents')
if record[1] ~= 'queued' or redis.call('ZSCORE', KEYS[7], ARGV[1]) then return 0 end
if record[2] and record[2] ~= '' then
  local first = redis.call('LINDEX', KEYS[5], 0)
  while first and first ~= ARGV[1] and redis.call('ZSCORE', KEYS[10], first) do -- it was set aside, and never ends
    redis.call('LPOP', KEYS[5])
    first = redis.call('LINDEX', KEYS[5], 0)
  end
  if first ~= ARGV[1] then return 0 end
end
if ARGV[6] == '1' and (redis.call('LPOS', KEYS[2], ARGV[1]) or redis.call('LPOS', KEYS[8], ARGV[1])) then
  redis.call('HSET', KEYS[3], 'status', 'queued')
  return 0
end
redis.call('HSET', KEYS[3], 'created_at', ARGV[3], 'enqueued_at', ARGV[3], 'origin', ARGV[2], 'data', ARGV[4],
  'status', 'queued', 'description', ARGV[1], 'timeout', -1, 'worker_name', '', 'started_at', '', 'ended_at', '')
redis.call('PERSIST', KEYS[3])
local stopped = switched_on(KEYS[9], switches_of(record[3], record[5] or record[4]))
if stopped[1] then return withhold(ARGV[8], stopped, ARGV[2], ARGV[1], ARGV[5] == 'front') end
redis.call('SADD', KEYS[4], KEYS[2])
redis.call(ARGV[5] == 'front' and 'LPUSH' or 'RPUSH', KEYS[2], ARGV[1])
if redis.call('LLEN', KEYS[6]) < tonumber(ARGV[7]) then redis.call('LPUSH', KEYS[6], '1') end
return 1
