-- depths: how many tickets there are of each queue, over all of its lanes, with those that limits hold back; and how many
-- jobs run from it.
-- prelude: lanes
-- KEYS  1 rq queues
-- ARGV  1 names for lanes.lua (JSON)
-- returns a list of {queue name, tickets, jobs that run}, one for each queue and each lane
local names, depths = cjson.decode(ARGV[1]), {}
for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local name = string.sub(key, #names.queue + 1)
  local queue, tickets = parts_of(name), redis.call('LLEN', key)
  if queue then
    for _, scope in ipairs(redis.call('ZRANGE', names.held .. name, 0, -1)) do
      tickets = tickets + redis.call('LLEN', list_of(names, name, scope))
    end
  end
  depths[#depths + 1] = { queue or name, tickets, redis.call('ZCARD', names.wip .. name) }
end
return depths
