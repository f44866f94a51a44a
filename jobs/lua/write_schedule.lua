-- write_schedule: makes a schedule, or changes one that is there.
-- KEYS  1 schedule  2 the tenant's schedules  3 SCHEDULES
-- ARGV  1 schedule id  2 'new': only if it is not there; 'old': only if it is; 'any'  3 most schedules of a tenant
--       4 '1': its slots begin now, those before are not its own any more  5.. pairs of field and value
-- returns 'written' | 'missing' | 'there' | 'full'
local there = redis.call('EXISTS', KEYS[1]) == 1
if ARGV[2] == 'old' and not there then return 'missing' end
if ARGV[2] == 'new' and there then return 'there' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not there then
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then return 'full' end
  redis.call('HSET', KEYS[1], 'created_ms', now, 'runs', 0, 'state', 'active')
  redis.call('ZADD', KEYS[2], now, ARGV[1])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('HINCRBY', KEYS[1], 'revision', 1)
if ARGV[4] == '1' or not there then redis.call('HSET', KEYS[1], 'cursor_ms', now) end
if redis.call('HGET', KEYS[1], 'state') == 'active' then
  redis.call('ZADD', KEYS[3], now, ARGV[1])
else
  redis.call('ZREM', KEYS[3], ARGV[1])
end
return 'written'
