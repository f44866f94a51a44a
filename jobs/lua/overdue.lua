-- overdue: what a sweep has to look at, by the clock of Redis. Lanes in which there is nothing are taken off RQ's list.
-- KEYS  1 DUE  2 EXPIRING  3 QUEUED  4 rq queues  5 ORPHANS
-- ARGV  1 lease margin in seconds  2 most of each  3 ms that a queued job may be without a ticket before it is looked at
--       4 prefix of rq wip  5 prefix of rq queue  6 how many of the due to pass over  7 of the expired
--       8 of the long queued  9 prefix of what limits hold back of a lane
-- returns {due job ids, expired job ids, long queued job ids, pairs of member whose lease has ended and queue,
--          ended job ids with children that have not}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ended, limit = {}, '(' .. (now / 1000 + ARGV[1])
for _, key in ipairs(redis.call('SMEMBERS', KEYS[4])) do
  local queue = string.sub(key, #ARGV[5] + 1)
  local wip = ARGV[4] .. queue
  if redis.call('ZCOUNT', wip, '-inf', limit) > 0 then -- to count none costs half of what a list of none does
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', wip, '-inf', limit, 'LIMIT', 0, ARGV[2])) do
      ended[#ended + 1] = { member, queue }
    end
  elseif string.find(queue, '~', 1, true) and redis.call('EXISTS', key, wip, ARGV[9] .. queue) == 0 then
    redis.call('SREM', KEYS[4], key)
  end
end
return {
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', ARGV[6], ARGV[2]),
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', ARGV[7], ARGV[2]),
  redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[3], 'LIMIT', ARGV[8], ARGV[2]),
  ended,
  redis.call('SRANDMEMBER', KEYS[5], ARGV[2]),
}
