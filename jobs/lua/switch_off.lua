-- switch_off: turns a kill switch off and puts the tickets that it withheld back, in their order, before all others.
-- prelude: lanes
-- KEYS  1 KILL_SWITCH  2 tickets that the switch withholds
-- ARGV  1 switch  2 names for lanes.lua (JSON)
-- returns how many tickets it put back
local names = cjson.decode(ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[1])
local withheld = redis.call('ZREVRANGE', KEYS[2], 0, -1)
redis.call('DEL', KEYS[2])
for _, member in ipairs(withheld) do
  local lane, id = string.match(member, '^([^|]*)|(.*)$')
  redis.call('LPUSH', names.queue .. lane, id)
  join(names, lane)
  wake(names, lane)
end
return #withheld
