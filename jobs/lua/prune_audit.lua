-- prune_audit: removes the old entries of an audit log, and the log when none is left.
-- KEYS  1 log  2 the logs that there are
-- ARGV  1 ms that an entry is kept
-- returns how many it removed
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local removed = redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', now - ARGV[1]))
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[2], KEYS[1])
end
return removed
