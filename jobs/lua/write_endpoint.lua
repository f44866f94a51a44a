-- write_endpoint: makes an endpoint or changes it, and says in the same step what it is told of.
-- KEYS  1 record  2 the tenant's endpoints  3 the tenant's listeners  4 secrets
-- ARGV  1 endpoint id  2 secret of a new one ('' for a change)  3 most endpoints of a tenant
--       4 event types that it is told of while it is enabled, between blanks  5 '1': it starts afresh, as if nothing had
--       failed
--       6.. pairs of record field and value
-- returns 1 | 0 there is none to change, or there are too many
if ARGV[2] ~= '' then
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then return 0 end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HSET', KEYS[1], 'created_ms', now)
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  redis.call('HSET', KEYS[4], ARGV[2], '')
elseif redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 6))
if ARGV[5] == '1' then redis.call('HDEL', KEYS[1], 'failing_ms', 'disabled_ms', 'disabled_reason') end
if redis.call('HGET', KEYS[1], 'enabled') == '1' then
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[4])
else
  redis.call('HDEL', KEYS[3], ARGV[1])
end
return 1
