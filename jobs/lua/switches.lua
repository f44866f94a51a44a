-- switches: which kill switches cover a job, and the tickets that they withhold. A prelude.
-- A switch is a field of the hash KILL_SWITCH: `global`, `tenant:{tenant}` or `agent:{tenant}:{agent}`.

-- the switches that could stop a job; `agents` are its own and those of the jobs above it, separated by spaces
local function switches_of(tenant, agents)
  local found, seen = { 'global', 'tenant:' .. tenant }, {}
  for agent in string.gmatch(agents, '%S+') do
    if not seen[agent] then table.insert(found, 'agent:' .. tenant .. ':' .. agent) end
    seen[agent] = true
  end
  return found
end

-- those of some switches that are on, in the same order, and the state of the first
local function switched_on(hash, switches)
  local on, first = {}, nil
  for i, state in ipairs(redis.call('HMGET', hash, unpack(switches))) do
    if state then
      table.insert(on, switches[i])
      first = first or state
    end
  end
  return on, first
end

-- puts a ticket into the set of the first of some switches, before or behind what is there, unless one of them has it
-- members are `queue|job id`, by their place; returns 1 when it did, else 0
local function withhold(prefix, switches, queue, id, front)
  local key, member = prefix .. switches[1], queue .. '|' .. id
  for _, switch in ipairs(switches) do
    if redis.call('ZSCORE', prefix .. switch, member) then return 0 end
  end
  local outermost = redis.call(front and 'ZRANGE' or 'ZREVRANGE', key, 0, 0, 'WITHSCORES')[2] or 0
  return redis.call('ZADD', key, outermost + (front and -1 or 1), member)
end
