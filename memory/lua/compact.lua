-- compact: puts a summary in the place of a conversation's oldest messages, if none was put there since they were read.
-- KEYS  1 the session's messages  2 what is known of them  3 hash that fences the write (any key without a fence)
-- ARGV  1 expected generation  2 time to live in seconds  3 field of the fence ('' for none)  4 what it has to hold
--       5 how many messages give way  6 the summary, a message as JSON
-- returns the new generation | -1 the generation is another, or there are no such messages
--       | -2 the fence holds another value
if ARGV[3] ~= '' and redis.call('HGET', KEYS[3], ARGV[3]) ~= ARGV[4] then return -2 end
local generation, covered = tonumber(redis.call('HGET', KEYS[2], 'generation') or 0), tonumber(ARGV[5])
-- the same summary once more: already done
if generation == ARGV[1] + 1 and redis.call('LINDEX', KEYS[1], 0) == ARGV[6] then return generation end
if generation ~= tonumber(ARGV[1]) or covered < 1 or redis.call('LLEN', KEYS[1]) < covered then return -1 end
redis.call('LTRIM', KEYS[1], covered, -1)
redis.call('LPUSH', KEYS[1], ARGV[6])
redis.call('HINCRBY', KEYS[2], 'base', covered - 1)
redis.call('HSET', KEYS[2], 'generation', generation + 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return generation + 1
