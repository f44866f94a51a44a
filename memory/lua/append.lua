-- append: adds messages to a session's conversation, if it still ends where it did when they were made.
-- KEYS  1 the session's messages  2 what is known of them  3 hash that fences the write (any key without a fence)
-- ARGV  1 expected end  2 time to live in seconds  3 field of the fence ('' for none)  4 what it has to hold
--       5 user whose job says them ('' for none)  6.. messages as JSON
-- returns the new end | -1 it ends elsewhere | -2 the fence holds another value
if ARGV[3] ~= '' and redis.call('HGET', KEYS[3], ARGV[3]) ~= ARGV[4] then return -2 end
local base = tonumber(redis.call('HGET', KEYS[2], 'base') or 0)
local length, expected = redis.call('LLEN', KEYS[1]), ARGV[1] - base
if length ~= expected then
  -- the same append once more: already done
  if expected < 0 or length ~= expected + #ARGV - 5 then return -1 end
  for i, message in ipairs(redis.call('LRANGE', KEYS[1], expected, -1)) do
    if message ~= ARGV[i + 5] then return -1 end
  end
  return base + length
end
for i = 6, #ARGV do length = redis.call('RPUSH', KEYS[1], ARGV[i]) end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[2], 'user:' .. ARGV[5], 1) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return base + length
