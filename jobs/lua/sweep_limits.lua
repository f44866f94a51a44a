-- sweep_limits: gives back the slots of jobs that run no more, and opens the lanes that wait for a limit that has room:
-- it was raised or lifted.
-- prelude: lanes
-- KEYS  1 what waits for limits, as `tenant:scope`
-- ARGV  1 names for lanes.lua (JSON)  2 most to look at  3 prefix of records
-- returns how many limits had room
local names, opened = cjson.decode(ARGV[1]), 0

-- an attempt runs while it has a lease, whatever a record says that cannot be read or is there no more
local function runs(id)
  local record = redis.pcall('HMGET', ARGV[3] .. id, 'status', 'token', 'queue')
  return record[1] == 'running' and record[3] and redis.call('ZSCORE', names.wip .. record[3], id .. ':' .. record[2])
end

-- the limit of a key is what the first job says that waits for it
local function limit_of(tenant, scope)
  if scope == 'tenant' then return redis.call('HGET', names.limits .. tenant, 'running') end
  if string.sub(scope, 1, 4) ~= 'key:' then return redis.call('HGET', names.limits .. tenant, 'running:' .. scope) end
  local lane = redis.call('SRANDMEMBER', scope_key(names.waiting, tenant, scope))
  local id = lane and redis.call('LINDEX', list_of(names, lane, scope), 0)
  local most = id and redis.pcall('HGET', ARGV[3] .. id, 'concurrency_limit')
  return type(most) == 'string' and most
end

for _, waits in ipairs(redis.call('SRANDMEMBER', KEYS[1], ARGV[2])) do
  local tenant, scope = string.match(waits, '^([^:]*):(.*)$')
  local running = scope_key(names.running, tenant, scope)
  for _, id in ipairs(redis.call('SMEMBERS', running)) do
    if not runs(id) then redis.call('SREM', running, id) end
  end
  if not is_full(names, tenant, scope, limit_of(tenant, scope)) then
    reopen(names, tenant, scope)
    opened = opened + 1
  end
end
return opened
