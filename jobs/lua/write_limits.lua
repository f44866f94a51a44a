-- write_limits: sets limits of a tenant, or lifts them.
-- KEYS  1 limits of the tenant
-- ARGV  pairs of field and number ('' lifts the limit)
-- returns 1
for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return 1
