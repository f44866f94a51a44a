-- settle_delivery: writes down a try at a delivery, and what follows: the next one, or the end of the endpoint.
-- prelude: outbox
-- KEYS  1 delivery  2 lane  3 busy deliveries of the lane  4 SETTLED  5 record of the endpoint, or of the job whose own
--       webhook it is  6 listeners of the tenant
-- ARGV  1 delivery id  2 number of the claim  3 'delivered' | 'failed' | 'gone': the listener wants no more | 'dropped'
--       | 'returned': it was not tried to an end  4 ms until the next try, of one that failed or was returned (0: there is
--       none)  5 the try (JSON, '' for none)
--       6 what was sent ('' for nothing)  7 ms of failures alone after which an endpoint is disabled
--       8 most of a lane at once  9 endpoint id ('' for a job's own webhook)  10 event type of an endpoint's end
--       11 names for outbox.lua (JSON)
-- returns {'stale'} another claim has been made | {status of the delivery, why the endpoint was disabled or ''}
local delivery = redis.call('HMGET', KEYS[1], 'claims', 'status', 'tenant', 'lane')
if delivery[1] ~= ARGV[2] or delivery[2] ~= 'pending' then return { 'stale' } end
local names, outcome, endpoint = cjson.decode(ARGV[11]), ARGV[3], ARGV[9]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local again = (outcome == 'failed' or outcome == 'returned') and ARGV[4] ~= '0'

redis.call('ZREM', KEYS[3], ARGV[1])
if ARGV[6] ~= '' then redis.call('HSETNX', KEYS[1], 'body', ARGV[6]) end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'try:' .. redis.call('HINCRBY', KEYS[1], 'made', 1), ARGV[5])
  redis.call('HINCRBY', KEYS[1], 'tries', 1)
end
if again then
  redis.call('HSET', KEYS[1], 'due_ms', now + ARGV[4])
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[4]), ARGV[1])
else
  redis.call('HSET', KEYS[1], 'status', outcome == 'gone' and 'failed' or outcome)
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZADD', KEYS[4], now, ARGV[1])
end
reschedule(names, delivery[4], tonumber(ARGV[8]), now)

local disabled = ''
if endpoint == '' then
  if outcome == 'gone' then redis.call('HDEL', KEYS[5], 'webhook') end
elseif outcome == 'delivered' then
  redis.call('HDEL', KEYS[5], 'failing_ms')
elseif (outcome == 'failed' or outcome == 'gone') and redis.call('HGET', KEYS[5], 'enabled') == '1' then
  redis.call('HSETNX', KEYS[5], 'failing_ms', now)
  if outcome == 'gone' then
    disabled = 'gone'
  elseif now - redis.call('HGET', KEYS[5], 'failing_ms') >= tonumber(ARGV[7]) then
    disabled = 'failing'
  end
end
if disabled ~= '' then
  redis.call('HSET', KEYS[5], 'enabled', 0, 'disabled_ms', now, 'disabled_reason', disabled)
  redis.call('HDEL', KEYS[6], endpoint)
  local about = cjson.encode({ endpoint_id = endpoint, reason = disabled })
  outbox(names, delivery[3], '', '')(ARGV[10], '', about)
end
return { redis.call('HGET', KEYS[1], 'status'), disabled }
