-- append: adds messages to a session's conversation, if it still has the length it had when they were made.
-- KEYS  1 the session's messages  2 hash that fences the write (any key without a fence)
-- ARGV  1 expected length  2 time to live in seconds  3 field of the fence ('' for none)  4 what it has to hold
--       5.. messages as JSON
-- returns the new length | -1 the length is another | -2 the fence holds another value
if ARGV[3] ~= '' and redis.call('HGET', KEYS[2], ARGV[3]) ~= ARGV[4] then return -2 end
local length = redis.call('LLEN', KEYS[1])
if length ~= tonumber(ARGV[1]) then
  -- the same append once more: already done
  if length ~= ARGV[1] + #ARGV - 4 then return -1 end
  for i, message in ipairs(redis.call('LRANGE', KEYS[1], ARGV[1], -1)) do
    if message ~= ARGV[i + 4] then return -1 end
  end
  return length
end
redis.call('RPUSH', KEYS[1], unpack(ARGV, 5))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('LLEN', KEYS[1])
