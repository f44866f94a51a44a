-- claim: takes tickets off the queues in their order and makes the job, in the same step, a running attempt.
-- prelude: switches
-- prelude: outbox
-- The ids are not known before the pop, so the keys of the jobs are made of the prefixes that keys.py hands over.
-- KEYS  1 rq suspended  2 rq queues  3 QUEUED  4 DUE  5 KILL_SWITCH  6.. rq queues to take from, in order
-- ARGV  1 most jobs to take  2 lease in seconds  3 lease margin in seconds  4 worker name  5 time as RQ writes it
--       6 prefixes of record, journal, channel, rq job, rq wip, rq execution, rq executions, rq queue, the name
--         of a session's jobs with {tenant} and {session}, prefix of the tickets that a switch withholds (JSON list)
--       7 versions that this worker runs (JSON object: "agent@version" -> true)  8 fencing tokens (JSON list)
--       9 source statuses of the claim (JSON object)  10 target status  11 event type
--       12 newest version of a record that this worker reads; an older record becomes one of this version
--       13 names for outbox.lua (JSON)
-- returns a list of {job id, token, rq queue name, record as a flat list}; the list of a record that cannot be
--       changed is empty, and its job is in no queue any more
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('HEXISTS', KEYS[5], 'global') == 1 then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room, lease = tonumber(ARGV[1]), tonumber(ARGV[2])
local ends = time[1] + lease + tonumber(ARGV[3])
local prefix, versions, tokens = cjson.decode(ARGV[6]), cjson.decode(ARGV[7]), cjson.decode(ARGV[8])
local sources, outbox_names = cjson.decode(ARGV[9]), cjson.decode(ARGV[13])
local any_switch, claimed = redis.call('EXISTS', KEYS[5]) == 1, {}

-- one bad record must not cost the others of this script their claims
local function set_aside(id, queue)
  redis.call('ZREM', KEYS[3], id)
  claimed[#claimed + 1] = { id, tokens[#claimed + 1], queue, {} }
end

local function run(id, key, queue, version, record)
  local token = tokens[#claimed + 1]
  local member = id .. ':' .. token
  local attempt = redis.pcall('HINCRBY', key, 'attempt', 1)
  if type(attempt) == 'table' then return set_aside(id, queue) end
  if version and version < tonumber(ARGV[12]) then redis.call('HSET', key, 'v', ARGV[12]) end
  redis.call('HSETNX', key, 'started_ms', now)
  redis.call('HSET', key, 'status', ARGV[10], 'token', token, 'worker', ARGV[4], 'since_ms', now, 'queue', queue, 'writes', 0)
  redis.call('ZREM', KEYS[3], id)
  local entry = redis.call('XADD', prefix[2] .. id, '*', 't', ARGV[11], 'a', attempt, 'd', cjson.encode({ worker = ARGV[4] }))
  outbox(outbox_names, record[4], id, record[8])(ARGV[11], entry)
  redis.call('PUBLISH', prefix[3] .. id, '')
  redis.call('ZADD', prefix[5] .. queue, ends, member)
  redis.call('HSET', prefix[6] .. member, 'id', token, 'created_at', time[1], 'last_heartbeat', time[1], 'worker_name', ARGV[4])
  redis.call('EXPIRE', prefix[6] .. member, lease + ARGV[3] + 60)
  redis.call('ZADD', prefix[7] .. id, ends + 60, token)
  redis.call('EXPIRE', prefix[7] .. id, lease + ARGV[3] + 60)
  redis.call('HSET', prefix[4] .. id, 'status', 'started', 'started_at', ARGV[5], 'last_heartbeat', ARGV[5], 'worker_name', ARGV[4])
  claimed[#claimed + 1] = { id, token, queue, redis.call('HGETALL', key) }
end

-- a ticket may have outlived what it was pushed for: the record says whether its job may run
local function may_run(id, record)
  if not record[1] or not sources[record[1]] or redis.call('ZSCORE', KEYS[4], id) then return false end
  if not record[5] or record[5] == '' then return true end
  local line = string.gsub(prefix[9], '{(%a+)}', { tenant = record[4], session = record[5] })
  return redis.call('LINDEX', line, 0) == id
end

-- the ticket of a job that is stopped is no worker's until the switch is off
local function is_stopped(id, record, queue)
  local stopped = any_switch and switched_on(KEYS[5], switches_of(record[4], record[7] or record[2])) or {}
  if stopped[1] then withhold(prefix[10], stopped, string.match(queue, '^[^@]*'), id) end
  return stopped[1]
end

for i = 6, #KEYS do
  for _ = 1, redis.call('LLEN', KEYS[i]) do
    if #claimed == room then break end
    local id = redis.call('LPOP', KEYS[i])
    local key = prefix[1] .. id
    local queue = string.sub(KEYS[i], #prefix[8] + 1)
    local record = redis.pcall('HMGET', key, 'status', 'agent', 'agent_version', 'tenant', 'session_id', 'v', 'agents', 'webhook')
    if record.err then
      set_aside(id, queue)
    elseif may_run(id, record) and not is_stopped(id, record, queue) then
      local version = record[6] and tonumber(record[6])
      local newer = version and version > tonumber(ARGV[12])
      if versions[record[2] .. '@' .. record[3]] and not newer then
        run(id, key, queue, version, record)
      else
        -- left to a worker that has this version: a side queue that only such workers take from
        local side = string.match(queue, '^[^@]*') .. '@' .. record[2] .. '@' .. record[3]
        if newer then side = side .. '@' .. record[6] end
        redis.call('RPUSH', prefix[8] .. side, id)
        redis.call('SADD', KEYS[2], prefix[8] .. side)
        redis.call('HSET', prefix[4] .. id, 'origin', side)
      end
    elseif not record[1] then
      redis.call('DEL', prefix[4] .. id)
    end
  end
end
return claimed
