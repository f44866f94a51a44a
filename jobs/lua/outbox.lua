-- outbox: notes what is to be told to whom, in the step that writes it. A prelude.
-- A delivery is one event for one listener: an endpoint of the tenant, or the job's own webhook. Until it is settled it
-- is in its lane by the time in ms at which it is due, and the lane is in `lanes`. Keys are made of the prefixes that
-- keys.py hands over as `names`.

-- notes one delivery; `entry` is the id of the journal's entry, '' for what is in no journal, which is in `about`
local function note(names, listener, tenant, job_id, type, entry, about)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local sequence = redis.call('HINCRBY', listener.record, 'told', 1)
  local id = 'dlv_' .. string.sub(listener.id, 5) .. '_' .. sequence
  redis.call('HSET', names.delivery .. id, 'tenant', tenant, 'owner', listener.owner, 'lane', listener.lane,
    'job_id', job_id, 'type', type, 'entry', entry, 'about', about, 'sequence', sequence, 'made_ms', now,
    'status', 'pending', 'due_ms', now, 'tries', 0)
  redis.call('ZADD', names.deliveries .. listener.owner, now, id)
  redis.call('ZADD', names.lane .. listener.lane, now, id)
  redis.call('ZADD', names.lanes, 'LT', now, listener.lane)
  return id
end

local function endpoint_as_listener(names, id)
  return { id = id, record = names.endpoint .. id, owner = id, lane = id }
end

-- a function that notes an event for all who listen; `own` is the job's own webhook as its record has it
local function outbox(names, tenant, job_id, own)
  local endpoints = redis.call('HGETALL', names.listeners .. tenant)
  if #endpoints == 0 and (not own or own == '') then return function() end end
  local listeners = {}
  for i = 1, #endpoints, 2 do
    local listener = endpoint_as_listener(names, endpoints[i])
    listener.events = endpoints[i + 1]
    table.insert(listeners, listener)
  end
  local readable, hook = pcall(cjson.decode, own or '')
  if readable then
    table.insert(listeners, { id = job_id, record = names.job .. job_id, owner = 'jobs:' .. tenant, lane = hook.lane,
      events = hook.events })
  end
  return function(type, entry, about)
    for _, listener in ipairs(listeners) do
      if string.find(listener.events, ' ' .. type .. ' ', 1, true) then
        note(names, listener, tenant, job_id, type, entry, about or '')
      end
    end
  end
end

-- says when a lane is to be looked at next: when its first delivery is due, and no sooner than it has room for one
local function reschedule(names, lane, most, now)
  local first = redis.call('ZRANGE', names.lane .. lane, 0, 0, 'WITHSCORES')
  if not first[1] then return redis.call('ZREM', names.lanes, lane) end
  local at = math.max(tonumber(first[2]), now)
  if redis.call('ZCARD', names.busy .. lane) >= most then
    at = math.max(at, tonumber(redis.call('ZRANGE', names.busy .. lane, 0, 0, 'WITHSCORES')[2]))
  end
  redis.call('ZADD', names.lanes, string.format('%.0f', at), lane)
end
