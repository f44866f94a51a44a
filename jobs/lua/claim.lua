-- claim: takes tickets off the queues in their order and makes the job, in the same step, a running attempt. The lanes of
-- a queue take turns, a ticket each. What a limit of running jobs holds back stands aside until the limit has room.
-- prelude: switches
-- prelude: lanes
-- prelude: outbox
-- The ids are not known before the pop, so the keys of the jobs are made of the prefixes that keys.py hands over.
-- KEYS  1 rq suspended  2 QUEUED  3 DUE  4 KILL_SWITCH
-- ARGV  1 most jobs to take  2 lease in seconds  3 lease margin in seconds  4 worker name  5 time as RQ writes it
--       6 prefixes of record, journal, channel, rq job, rq execution, rq executions, the name of a session's jobs with
--         {tenant} and {session}, prefix of the tickets that a switch withholds (JSON list)
--       7 versions that this worker runs (JSON object: "agent@version" -> true)  8 fencing tokens (JSON list)
--       9 source statuses of the claim (JSON object)  10 target status  11 event type
--       12 newest version of a record that this worker reads; an older record becomes one of this version
--       13 names for outbox.lua (JSON)  14 names for lanes.lua (JSON)  15 most tickets to look at
--       16.. names of the queues to take from, in order
-- returns a list of {job id, token, rq queue name, record as a flat list}; the list of a record that cannot be
--       changed is empty, and its job is in no queue any more
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('HEXISTS', KEYS[4], 'global') == 1 then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room, lease, looks = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[15])
local ends = time[1] + lease + tonumber(ARGV[3])
local prefix, versions, tokens = cjson.decode(ARGV[6]), cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
local sources, outbox_names, names = cjson.decode(ARGV[9]), cjson.decode(ARGV[13]), cjson.decode(ARGV[14])
local any_switch, claimed, limits = redis.call('EXISTS', KEYS[4]) == 1, {}, {}

-- one bad record must not cost the others of this script their claims
local function set_aside(id, lane)
  redis.call('ZREM', KEYS[2], id)
  claimed[#claimed + 1] = { id, tokens[#claimed + 1], lane, {} }
  return 'taken'
end

local function run(id, key, lane, record)
  local token = tokens[#claimed + 1]
  local member = id .. ':' .. token
  local attempt = redis.pcall('HINCRBY', key, 'attempt', 1)
  if type(attempt) == 'table' then return set_aside(id, lane) end
  if record[6] and tonumber(record[6]) < tonumber(ARGV[12]) then redis.call('HSET', key, 'v', ARGV[12]) end
  redis.call('HSETNX', key, 'started_ms', now)
  redis.call('HSET', key, 'status', ARGV[10], 'token', token, 'worker', ARGV[4], 'since_ms', now, 'queue', lane, 'writes', 0)
  redis.call('ZREM', KEYS[2], id)
  local entry = redis.call('XADD', prefix[2] .. id, '*', 't', ARGV[11], 'a', attempt, 'd', cjson.encode({ worker = ARGV[4] }))
  outbox(outbox_names, record[4], id, record[8])(ARGV[11], entry)
  redis.call('PUBLISH', prefix[3] .. id, '')
  redis.call('ZADD', names.wip .. lane, ends, member)
  redis.call('HSET', prefix[5] .. member, 'id', token, 'created_at', time[1], 'last_heartbeat', time[1], 'worker_name', ARGV[4])
  redis.call('EXPIRE', prefix[5] .. member, lease + ARGV[3] + 60)
  redis.call('ZADD', prefix[6] .. id, ends + 60, token)
  redis.call('EXPIRE', prefix[6] .. id, lease + ARGV[3] + 60)
  redis.call('HSET', prefix[4] .. id, 'status', 'started', 'started_at', ARGV[5], 'last_heartbeat', ARGV[5], 'worker_name', ARGV[4])
  for _, scope in ipairs(scopes_of(record[2], record[9])) do
    redis.call('SADD', scope_key(names.running, record[4], scope), id)
  end
  claimed[#claimed + 1] = { id, token, lane, redis.call('HGETALL', key) }
  return 'taken'
end

-- a ticket may have outlived what it was pushed for: the record says whether its job may run
local function may_run(id, record)
  if not record[1] or not sources[record[1]] or redis.call('ZSCORE', KEYS[3], id) then return false end
  if not record[5] or record[5] == '' then return true end
  local line = string.gsub(prefix[7], '{(%a+)}', { tenant = record[4], session = record[5] })
  return redis.call('LINDEX', line, 0) == id
end

-- the ticket of a job that is stopped is no worker's until the switch is off
local function is_stopped(id, record, lane)
  local stopped = any_switch and switched_on(KEYS[4], switches_of(record[4], record[7] or record[2])) or {}
  if stopped[1] then withhold(prefix[8], stopped, string.match(lane, '^[^@]*'), id) end
  return stopped[1]
end

local function limit(tenant, field)
  limits[tenant] = limits[tenant] or {}
  if limits[tenant][field] == nil then limits[tenant][field] = redis.call('HGET', names.limits .. tenant, field) end
  return limits[tenant][field]
end

-- the limit, if any, that holds a job back; that of its tenant holds whole lanes
local function held_by(record)
  local tenant, agent = record[4], 'agent:' .. record[2]
  local key = record[9] and record[9] ~= '' and 'key:' .. record[9]
  if key and is_full(names, tenant, key, record[10]) then return key end
  return is_full(names, tenant, agent, limit(tenant, 'running:' .. agent)) and agent
end

-- makes a ticket of a lane a claim, or puts it where it belongs; `scope` held it until now
-- returns 'taken', or the scope that holds it, or nil
local function take(id, lane, scope)
  looks = looks - 1
  local key = prefix[1] .. id
  local record = redis.pcall('HMGET', key, 'status', 'agent', 'agent_version', 'tenant', 'session_id', 'v', 'agents',
    'webhook', 'concurrency_key', 'concurrency_limit')
  if record.err or (record[1] and not record[4]) then return set_aside(id, lane) end
  if not record[1] then redis.call('DEL', prefix[4] .. id) end
  if not may_run(id, record) or is_stopped(id, record, lane) then return nil end
  local newer = record[6] and tonumber(record[6]) > tonumber(ARGV[12])
  if newer or not versions[record[2] .. '@' .. record[3]] then
    -- left to a worker that has this version: a side queue that only such workers take from
    local side = string.match(lane, '^[^@]*') .. '@' .. record[2] .. '@' .. record[3]
    if newer then side = side .. '@' .. record[6] end
    redis.call('RPUSH', names.queue .. side, id)
    redis.call('HSET', prefix[4] .. id, 'origin', side)
    join(names, side)
    return nil
  end
  local holder = held_by(record)
  if not holder then return run(id, key, lane, record) end
  hold(names, record[4], holder, lane, id, holder == scope)
  return holder
end

-- gives a lane its turn: what limits held goes first; returns whether a job was claimed
local function serve(lane)
  for _, scope in ipairs(redis.call('ZRANGEBYSCORE', names.held .. lane, 1, '+inf')) do
    local list, outcome = list_of(names, lane, scope), nil
    repeat
      local id = redis.call('LPOP', list)
      outcome = not id and 'empty' or take(id, lane, scope)
    until outcome or looks <= 0
    if redis.call('EXISTS', list) == 0 then redis.call('ZREM', names.held .. lane, scope) end
    if outcome == 'taken' then return true end
  end
  for _ = 1, math.min(looks, redis.call('LLEN', names.queue .. lane)) do
    if take(redis.call('LPOP', names.queue .. lane), lane) == 'taken' then return true end
  end
  return false
end

-- tickets that stand in the queue itself go to the lanes of their tenants
local function sort_out(queue)
  while #claimed < room and looks > 0 do
    local id = redis.call('LPOP', names.queue .. queue)
    if not id then return end
    local tenant = redis.pcall('HGET', prefix[1] .. id, 'tenant')
    if type(tenant) == 'string' then
      local lane = lane_of(queue, tenant)
      redis.call('RPUSH', names.queue .. lane, id)
      join(names, lane)
      looks = looks - 1
    else
      take(id, queue)
    end
  end
end

for i = 16, #ARGV do
  local rotation, done = names.rotation .. ARGV[i], 0
  sort_out(ARGV[i])
  while #claimed < room and looks > 0 do
    local lane = redis.call('ZRANGE', rotation, done, done)[1]
    if not lane then break end
    local _, tenant = parts_of(lane)
    if is_full(names, tenant, 'tenant', limit(tenant, 'running')) then
      redis.call('ZREM', rotation, lane)
      await(names, tenant, 'tenant', lane)
    else
      local served = serve(lane)
      leave_or_stay(names, lane, served)
      if not served and redis.call('ZSCORE', rotation, lane) then done = done + 1 end
    end
  end
  if looks <= 0 then
    wake(names, ARGV[i])
    break
  end
end
return claimed
