-- idempotency: claims an idempotency key for a request, or says what became of the first one.
-- KEYS  1 idempotency key
-- ARGV  1 fingerprint of the request  2 seconds after which an unanswered claim lapses
-- returns {'first'} | {'answered', status, headers, body} | {'pending'} | {'conflict'}
local first = redis.call('HMGET', KEYS[1], 'fingerprint', 'status', 'headers', 'body')
if not first[1] then
  -- job_id marks the key as taken for submit.lua too
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'job_id', '')
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  return { 'first' }
end
if first[1] ~= ARGV[1] then return { 'conflict' } end
if not first[2] then return { 'pending' } end
return { 'answered', first[2], first[3], first[4] }
