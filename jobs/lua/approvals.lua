-- approvals: what a parked job asks of people, a record for each call. A prelude.
-- Keys are made of the prefixes that keys.py hands over as `names`. One that is pending is in `pending`, and its job is
-- in requires_action.

-- the ids of a job's approvals that are pending
local function undecided(names, job_id)
  local open = {}
  for _, id in ipairs(redis.call('SMEMBERS', names.of_job .. job_id)) do
    if redis.call('ZSCORE', names.pending, id) then table.insert(open, id) end
  end
  return open
end

-- writes down what a job asks, and an entry about each, which it hands to `tell`; `ms` is how long it may wait, 0 for ever
local function ask(names, tenant, job_id, journal, attempt, requests, now, tell)
  for _, request in ipairs(requests) do
    local id, expires = request.id, request.ms > 0 and string.format('%.0f', now + request.ms) or '+inf'
    redis.call('HSET', names.approval .. id, 'tenant', tenant, 'job_id', job_id, 'status', 'pending',
      'requested_ms', now, 'expires_ms', expires, 'asked', request.text)
    redis.call('SADD', names.of_job .. job_id, id)
    redis.call('ZADD', names.of_tenant .. tenant, now, id)
    redis.call('ZADD', names.pending_of .. tenant, now, id)
    redis.call('ZADD', names.pending, expires, id)
    tell('approval.requested', redis.call('XADD', journal, '*', 't', 'approval.requested', 'a', attempt, 'd', request.text))
  end
end

-- ends the waiting of one; `ruling` is the data of the entry that says how, '' for none
local function close(names, tenant, id, status, ruling, now)
  redis.call('HSET', names.approval .. id, 'status', status, 'decided_ms', now, 'ruling', ruling)
  redis.call('ZREM', names.pending, id)
  redis.call('ZREM', names.pending_of .. tenant, id)
end
