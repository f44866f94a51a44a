-- transition: moves a job from one status to another: status, event, indexes, counters and RQ's own record together.
-- What an attempt that leaves the job has still reserved is settled at its worst case. What a parked job asks of people is
-- written down, and withdrawn when it is left without their answers.
-- prelude: lanes
-- prelude: money
-- prelude: outbox
-- prelude: approvals
-- KEYS  1 record  2 journal  3 QUEUED  4 DUE  5 EXPIRING  6 open index  7 ended index of the target
--       8 ended index of the source (any key when the source is not an ended status)  9 session's jobs  10 STATS
--       11 rq wip  12 rq execution  13 rq executions  14 rq job  15 rq registry of the ending that is made or undone
--       16 ENDED  17 job's blobs  18 blob that the event's data refers to (any key when it refers to none)  19 HELD
--       20 record, 21 journal and 22 open children of the parent (any keys when it has none)  23 its own open children
--       24 ORPHANS
-- ARGV  1 job id  2 sources (JSON object)  3 target  4 ended statuses (JSON object)  5 event type  6 event data
--       7 channel  8 token of the attempt ('' for none)  9 '1': only when the lease has ended  10 lease margin (s)
--       11 due time in ms (0 for none; negative: that many ms from now)  12 stop reason ('' for none)
--       13 '1': count a lost worker  14 the status that KEYS[8] was made for  15 stats field of an ending ('' for none)
--       16 the blob's content ('' for none)  17 names for money.lua (JSON)
--       18 the budget that holds the job ('' for none)  19 ms until which it does (+inf: no end)
--       20 the parent's id ('' for none)  21 the parent's channel  22 what the parent's journal says of an ending, or its undoing
--       23 '1': it waits for its children  24 what the job asks of people (JSON list of `id`, `ms`, `text`;
--       '' for nothing)  25 names for approvals.lua (JSON)  26 names for outbox.lua (JSON)  27 names for lanes.lua (JSON)
--       28.. pairs of record field and value
-- returns {'moved', id of the entry, next job of the session or '', 1: a cancel that was asked for is still to be made,
--           the parent that waits for none of its children any more or ''}
--       | {'refused', status} | {'stale'} | {'missing'} | {'alive'} the lease has not ended
--       | {'undecided', number of approvals that it still waits for}
local record = redis.call('HMGET', KEYS[1], 'status', 'token', 'attempt', 'since_ms', 'session_id', 'created_ms', 'cancel', 'open', 'tenant', 'webhook', 'agent',
  'concurrency_key', 'queue')
local status, token = record[1], record[2] or ''
if not status then return { 'missing' } end
if ARGV[8] ~= '' and token ~= ARGV[8] then return { 'stale' } end
local sources, ended = cjson.decode(ARGV[2]), cjson.decode(ARGV[4])
if not sources[status] or (ended[status] and status ~= ARGV[14]) then return { 'refused', status } end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local member = ARGV[1] .. ':' .. token
if ARGV[9] == '1' then
  local score = redis.call('ZSCORE', KEYS[11], member)
  if score and tonumber(score) - ARGV[10] >= time[1] + time[2] / 1000000 then return { 'alive' } end
end

local target, session = ARGV[3], record[5] and record[5] ~= ''
local outbox_names = cjson.decode(ARGV[26])
local tell = outbox(outbox_names, record[9], ARGV[1], record[10])
if status == 'requires_action' then
  local names = cjson.decode(ARGV[25])
  local open = undecided(names, ARGV[1])
  if target == 'queued' and #open > 0 then return { 'undecided', #open } end
  for _, id in ipairs(open) do close(names, record[9], id, 'withdrawn', '', now) end
  redis.call('ZREM', names.decided, ARGV[1])
end
if record[8] and record[8] ~= '0' and (status == 'running' or ended[target]) then
  local lost, reached = settle_open(open_account(cjson.decode(ARGV[17]), ARGV[1]), now, ended[target])
  for _, entry in ipairs(lost) do
    tell(entry[1], redis.call('XADD', KEYS[2], '*', 't', entry[1], 'a', record[3], 'd', cjson.encode(entry[2])))
  end
  for _, about in ipairs(reached) do
    tell('budget.reached', redis.call('XADD', KEYS[2], '*', 't', 'budget.reached', 'a', record[3], 'd', cjson.encode(about)))
  end
end
if status == 'running' then
  redis.call('HINCRBY', KEYS[1], 'ran_ms', now - record[4])
  redis.call('HDEL', KEYS[1], 'token', 'worker', 'since_ms')
  redis.call('ZREM', KEYS[11], member)
  redis.call('DEL', KEYS[12])
  redis.call('ZREM', KEYS[13], token)
  vacate(cjson.decode(ARGV[27]), record[9], record[11], record[12], ARGV[1], record[13] or '')
elseif status == 'queued' then
  redis.call('ZREM', KEYS[3], ARGV[1])
elseif status == 'paused' then
  redis.call('ZREM', KEYS[19], ARGV[1])
  redis.call('HDEL', KEYS[1], 'held_by')
end
redis.call('ZREM', KEYS[4], ARGV[1])
if ended[status] then
  redis.call('HDEL', KEYS[1], 'ended_ms', 'stop_reason', 'end_id', 'lost')
  redis.call('ZREM', KEYS[8], ARGV[1])
  redis.call('ZREM', KEYS[15], ARGV[1])
  redis.call('ZREM', KEYS[16], ARGV[1])
  redis.call('ZADD', KEYS[6], record[6], ARGV[1])
  redis.call('SREM', KEYS[24], ARGV[1])
end

if ARGV[16] ~= '' then
  if redis.call('SADD', KEYS[17], KEYS[18]) == 1 then redis.call('HINCRBY', KEYS[18], 'jobs', 1) end
  redis.call('HSETNX', KEYS[18], 'data', ARGV[16])
end
if ARGV[24] ~= '' then
  ask(cjson.decode(ARGV[25]), record[9], ARGV[1], KEYS[2], record[3], cjson.decode(ARGV[24]), now, tell)
end
local entry = redis.call('XADD', KEYS[2], '*', 't', ARGV[5], 'a', record[3] or 0, 'd', ARGV[6])
tell(ARGV[5], entry)
redis.call('HSET', KEYS[1], 'status', target, unpack(ARGV, 28))
if ARGV[12] ~= '' then redis.call('HSET', KEYS[1], 'stop_reason', ARGV[12]) else redis.call('HDEL', KEYS[1], 'stop_reason') end
if ARGV[13] == '1' then redis.call('HINCRBY', KEYS[1], 'lost', 1) end
-- what was asked of a running attempt stands until it is done, over any move that leaves it undone
if ended[target] then redis.call('HDEL', KEYS[1], 'cancel', 'pause') end
if target == 'paused' then redis.call('HDEL', KEYS[1], 'pause') end
redis.call('HDEL', KEYS[1], 'awaits_children')
if ARGV[18] ~= '' then
  redis.call('HSET', KEYS[1], 'held_by', ARGV[18])
  redis.call('ZADD', KEYS[19], ARGV[19], ARGV[1])
  if ARGV[19] ~= '+inf' then redis.call('ZADD', KEYS[4], ARGV[19], ARGV[1]) end
end
local known = redis.call('EXISTS', KEYS[14]) == 1
if known then
  local words = ended[target] and string.match(KEYS[15], '^rq:(%a+):') or 'deferred'
  redis.call('HSET', KEYS[14], 'status', words, 'worker_name', '')
end

local following, reunited = '', ''
local parent = ARGV[20] ~= '' and redis.call('HMGET', KEYS[20], 'attempt', 'awaits_children', 'ended_ms', 'webhook') or {}
local function tell_parent(type)
  if not parent[1] or parent[3] then return end
  local told = redis.call('XADD', KEYS[21], '*', 't', type, 'a', parent[1], 'd', ARGV[22])
  outbox(outbox_names, record[9], ARGV[20], parent[4])(type, told)
  redis.call('PUBLISH', ARGV[21], '')
end
if ended[status] and parent[1] then
  redis.call('SADD', KEYS[22], ARGV[1])
  tell_parent('child.started')
end
if target == 'queued' then
  redis.call('ZADD', KEYS[3], now, ARGV[1])
  local due = tonumber(ARGV[11])
  if ARGV[23] == '1' then
    if redis.call('SCARD', KEYS[23]) == 0 then due = 0 else redis.call('HSET', KEYS[1], 'awaits_children', 1) end
  end
  if due ~= 0 then redis.call('ZADD', KEYS[4], due < 0 and now - due or due, ARGV[1]) end
  if session and not redis.call('LPOS', KEYS[9], ARGV[1]) then redis.call('RPUSH', KEYS[9], ARGV[1]) end
elseif ended[target] then
  redis.call('HSET', KEYS[1], 'ended_ms', now, 'end_id', entry)
  redis.call('ZREM', KEYS[6], ARGV[1])
  redis.call('ZADD', KEYS[7], record[6], ARGV[1])
  redis.call('ZADD', KEYS[16], now, ARGV[1])
  redis.call('ZREM', KEYS[5], ARGV[1])
  redis.call('HINCRBY', KEYS[10], ARGV[15], 1)
  if session then
    redis.call('LREM', KEYS[9], 1, ARGV[1])
    following = redis.call('LINDEX', KEYS[9], 0) or ''
  end
  if redis.call('EXISTS', KEYS[23]) == 1 then redis.call('SADD', KEYS[24], ARGV[1]) end
  if ARGV[20] ~= '' and redis.call('SREM', KEYS[22], ARGV[1]) == 1 then
    tell_parent('child.completed')
    if redis.call('SCARD', KEYS[22]) == 0 then
      redis.call('SREM', KEYS[24], ARGV[20])
      if parent[2] then
        redis.call('ZADD', KEYS[4], 'XX', now, ARGV[20])
        reunited = ARGV[20]
      end
    end
  end
  if known then
    redis.call('EXPIRE', KEYS[14], 500)
    redis.call('ZADD', KEYS[15], time[1] + 500, ARGV[1])
  end
end
redis.call('PUBLISH', ARGV[7], '')
local unmade = record[7] and status == 'running' and target ~= 'queued' and not ended[target]
return { 'moved', entry, following, unmade and 1 or 0, reunited }
