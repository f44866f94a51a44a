-- approvals_due: what a sweep has to do about approvals, by the clock of Redis.
-- KEYS  1 PENDING_APPROVALS  2 DECIDED
-- ARGV  1 most of each  2 ms that a decided job is left to whoever decided
-- returns {expired approvals, jobs that are still to be queued}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1]),
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2], 'LIMIT', 0, ARGV[1]),
}
