-- push_ticket: puts an RQ ticket of a queued job into its lane, unless the job may not run yet. The ticket of a job that
-- a kill switch stops goes to those that the switch withholds.
-- prelude: switches
-- prelude: lanes
-- KEYS  1 record  2 rq queue  3 rq job  4 session's jobs  5 DUE  6 KILL_SWITCH  7 DEAD_LETTERS
--       8.. lists in which an earlier ticket may stand; none for a fresh job
-- ARGV  1 job id  2 name of the lane  3 time as RQ writes it  4 serialised call  5 'front' | 'back'
--       6 prefix of the tickets that a switch withholds  7 names for lanes.lua (JSON)
-- returns 1 pushed | 0 not queued, not due, behind another job of its session, or already there
local record = redis.call('HMGET', KEYS[1], 'status', 'session_id', 'tenant', 'agent', 'agents')
if record[1] ~= 'queued' or redis.call('ZSCORE', KEYS[5], ARGV[1]) then return 0 end
if record[2] and record[2] ~= '' then
  local first = redis.call('LINDEX', KEYS[4], 0)
  while first and first ~= ARGV[1] and redis.call('ZSCORE', KEYS[7], first) do -- it was set aside, and never ends
    redis.call('LPOP', KEYS[4])
    first = redis.call('LINDEX', KEYS[4], 0)
  end
  if first ~= ARGV[1] then return 0 end
end
for i = 8, #KEYS do
  if redis.call('LPOS', KEYS[i], ARGV[1]) then
    redis.call('HSET', KEYS[3], 'status', 'queued')
    return 0
  end
end
redis.call('HSET', KEYS[3], 'created_at', ARGV[3], 'enqueued_at', ARGV[3], 'origin', ARGV[2], 'data', ARGV[4],
  'status', 'queued', 'description', ARGV[1], 'timeout', -1, 'worker_name', '', 'started_at', '', 'ended_at', '')
redis.call('PERSIST', KEYS[3])
local stopped = switched_on(KEYS[6], switches_of(record[3], record[5] or record[4]))
if stopped[1] then return withhold(ARGV[6], stopped, ARGV[2], ARGV[1], ARGV[5] == 'front') end
redis.call(ARGV[5] == 'front' and 'LPUSH' or 'RPUSH', KEYS[2], ARGV[1])
local names = cjson.decode(ARGV[7])
join(names, ARGV[2])
wake(names, ARGV[2])
return 1
