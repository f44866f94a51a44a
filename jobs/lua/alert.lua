-- alert: raises an alert or resolves it, and puts the messages about that into the outbox in the same step.
-- KEYS  1 ALERTS  2 ALERT_OUTBOX
-- ARGV  1 field of the alert  2 the alert as JSON ('' resolves it)  3.. pairs of field and message for the outbox
-- returns 1 done | 0 it was raised, or resolved, before
local changed
if ARGV[2] ~= '' then
  changed = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
else
  changed = redis.call('HDEL', KEYS[1], ARGV[1])
end
if changed == 1 and ARGV[3] then redis.call('HSET', KEYS[2], unpack(ARGV, 3)) end
return changed
