-- claim_deliveries: hands out deliveries that are due, lane by lane, no more of a lane at once than it may have.
-- One that is never settled, for its worker died, is due again when the lease has ended.
-- prelude: outbox
-- KEYS  1 LANES
-- ARGV  1 most deliveries to take  2 most of a lane at once  3 lease in ms  4 names for outbox.lua (JSON)
-- returns a list of {delivery id, number of this claim of it, its fields as a flat list}
local names, claimed = cjson.decode(ARGV[4]), {}
local room, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = string.format('%.0f', now + ARGV[3])
for _, lane in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, room)) do
  local busy = names.busy .. lane
  redis.call('ZREMRANGEBYSCORE', busy, '-inf', now)
  local free = math.min(room - #claimed, most - redis.call('ZCARD', busy))
  local due = free > 0 and redis.call('ZRANGEBYSCORE', names.lane .. lane, '-inf', now, 'LIMIT', 0, free) or {}
  for _, id in ipairs(due) do
    redis.call('ZADD', names.lane .. lane, ends, id)
    redis.call('ZADD', busy, ends, id)
    redis.call('PEXPIRE', busy, ARGV[3])
    local claim = redis.call('HINCRBY', names.delivery .. id, 'claims', 1)
    table.insert(claimed, { id, claim, redis.call('HGETALL', names.delivery .. id) })
  end
  reschedule(names, lane, most, now)
  if #claimed == room then break end
end
return claimed
