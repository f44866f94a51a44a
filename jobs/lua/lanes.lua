-- lanes: the tickets of each tenant, whose turn it is, and what a limit of running jobs holds back. A prelude.
-- A tenant's tickets of a queue have an RQ queue of their own, its lane: the queue's name with `~{tenant}` before any `@`.
-- `rotation` of a queue: sorted set of the lanes that have tickets, in the order in which they are served.
-- `running` of a tenant and a scope: set of the jobs that run; a scope is `tenant`, `agent:{agent}` or `key:{key}`.
-- `held` of a lane: sorted set of the scopes that hold tickets of it back, by their turn; 0: there was no room yet. The
-- tickets stand in the list `held` of lane and scope.
-- `waiting` of a tenant and a scope: set of the lanes to open again when it has room; `waits` has all such scopes.

local RUNNING = 1e13 -- what a running job weighs: more than any number of turns

local function lane_of(queue, tenant)
  local base, side = string.match(queue, '^([^@]*)(.*)$')
  return base .. '~' .. tenant .. side
end

-- the queue and the tenant of a lane; nil for a queue that is none, as there were before there were lanes
local function parts_of(lane)
  local base, tenant, side = string.match(lane, '^([^~@]*)~([^@]*)(.*)$')
  if base then return base .. side, tenant end
end

local function wake(names, lane)
  local list = names.wake .. string.match(lane, '^([^~@]*)%.%a+')
  if redis.call('LLEN', list) < names.most_wakes then redis.call('LPUSH', list, '1') end
end

-- fewest running jobs first, so that long ones do not crowd short ones out; among equals the one served the longest ago
local function place(names, lane)
  return redis.call('ZCARD', names.wip .. lane) * RUNNING + redis.call('INCR', names.turns)
end

-- lets a lane that has tickets take part; one that comes back gets nothing for its absence
local function join(names, lane)
  local queue = parts_of(lane)
  if not queue then return end
  redis.call('SADD', names.queues, names.queue .. queue, names.queue .. lane)
  if not redis.call('ZSCORE', names.rotation .. queue, lane) then
    redis.call('ZADD', names.rotation .. queue, place(names, lane), lane)
  end
end

-- what remains to be done once a lane has lost a ticket or had its turn
local function leave_or_stay(names, lane, served)
  local rotation = names.rotation .. parts_of(lane)
  if redis.call('EXISTS', names.queue .. lane) == 0 and redis.call('ZCOUNT', names.held .. lane, 1, '+inf') == 0 then
    redis.call('ZREM', rotation, lane)
  elseif served then
    redis.call('ZADD', rotation, 'XX', place(names, lane), lane)
  end
end

local function scope_key(prefix, tenant, scope) return prefix .. tenant .. ':' .. scope end

local function list_of(names, lane, scope) return names.held .. lane .. '|' .. scope end

local function is_full(names, tenant, scope, most)
  return most and redis.call('SCARD', scope_key(names.running, tenant, scope)) >= tonumber(most)
end

-- the scopes in which a job that runs takes a slot
local function scopes_of(agent, key)
  local scopes = { 'tenant', 'agent:' .. agent }
  if key and key ~= '' then table.insert(scopes, 'key:' .. key) end
  return scopes
end

-- has a lane opened again as soon as a scope has room
local function await(names, tenant, scope, lane)
  redis.call('SADD', scope_key(names.waiting, tenant, scope), lane)
  redis.call('SADD', names.waits, tenant .. ':' .. scope)
end

-- keeps a ticket until a scope has room, behind those that wait already or, if it was the first, before them
local function hold(names, tenant, scope, lane, id, front)
  redis.call(front and 'LPUSH' or 'RPUSH', list_of(names, lane, scope), id)
  redis.call('ZADD', names.held .. lane, 0, scope)
  await(names, tenant, scope, lane)
end

-- opens the lanes that wait for a scope
local function reopen(names, tenant, scope)
  local waiting = scope_key(names.waiting, tenant, scope)
  local lanes = redis.call('SMEMBERS', waiting)
  if #lanes == 0 then return end
  table.sort(lanes)
  redis.call('DEL', waiting)
  redis.call('SREM', names.waits, tenant .. ':' .. scope)
  for _, lane in ipairs(lanes) do
    if scope ~= 'tenant' then redis.call('ZADD', names.held .. lane, 'XX', redis.call('INCR', names.turns), scope) end
    join(names, lane)
    wake(names, lane)
  end
end

-- gives back the slots of a job that runs no more, and its lane the turn that it has for it
local function vacate(names, tenant, agent, key, id, lane)
  for _, scope in ipairs(scopes_of(agent, key)) do
    redis.call('SREM', scope_key(names.running, tenant, scope), id)
    reopen(names, tenant, scope)
  end
  local queue = parts_of(lane)
  local turn = queue and redis.call('ZSCORE', names.rotation .. queue, lane)
  if turn then
    local score = redis.call('ZCARD', names.wip .. lane) * RUNNING + turn % RUNNING
    redis.call('ZADD', names.rotation .. queue, score, lane)
  end
end
