-- switch_off: turns a kill switch off and puts the tickets that it withheld back, in their order, before all others.
-- KEYS  1 KILL_SWITCH  2 tickets that the switch withholds  3 rq queues
-- ARGV  1 switch  2 prefix of rq queue  3 prefix of the wake lists  4 most elements of a wake list
-- returns how many tickets it put back
redis.call('HDEL', KEYS[1], ARGV[1])
local withheld = redis.call('ZREVRANGE', KEYS[2], 0, -1)
redis.call('DEL', KEYS[2])
for _, member in ipairs(withheld) do
  local queue, pool, id = string.match(member, '^((.*)%.%a+)|(.*)$')
  redis.call('SADD', KEYS[3], ARGV[2] .. queue)
  redis.call('LPUSH', ARGV[2] .. queue, id)
  local wake = ARGV[3] .. pool
  if redis.call('LLEN', wake) < tonumber(ARGV[4]) then redis.call('LPUSH', wake, '1') end
end
return #withheld
