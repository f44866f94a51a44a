-- switch_on: turns a kill switch on; one that is on stays as it was.
-- KEYS  1 KILL_SWITCH  2 evidence of the switch
-- ARGV  1 switch  2 who turns it on  3 reason ('' for none)
-- returns its state, as JSON
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state then
  local time, counted = redis.call('TIME'), redis.call('HMGET', KEYS[2], 'begun', 'refused')
  local since_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  state = cjson.encode({ since_ms = since_ms, by = ARGV[2], reason = ARGV[3],
    begun = tonumber(counted[1] or 0), refused = tonumber(counted[2] or 0) })
  redis.call('HSET', KEYS[1], ARGV[1], state)
end
return state
