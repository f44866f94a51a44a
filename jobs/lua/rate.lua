-- rate: takes tokens out of a bucket, if it holds as many. It fills by the clock of Redis, and is full when it is new.
-- KEYS  1 bucket; it expires when it is full again
-- ARGV  1 tokens that it gets in a minute  2 tokens that it holds at most  3 tokens to take; 0 only looks
-- returns {1 taken | 0 too few, whole tokens left, µs until there is one more (0: it is full)}
local TOKEN = 60000000 -- the level is counted in parts of a token of which ARGV[1] come in a µs: all stays whole
local rate, most, take = tonumber(ARGV[1]), ARGV[2] * TOKEN, ARGV[3] * TOKEN
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local bucket = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, elapsed = most, 0
if bucket[1] then
  elapsed = now - bucket[2]
  level = math.min(most, bucket[1] + math.max(0, elapsed) * rate)
end
local taken = level >= take
if taken then level = level - take end
if (taken and take > 0) or elapsed < 0 then -- a clock that was set back must not stop the filling
  redis.call('HSET', KEYS[1], 'level', string.format('%.0f', level), 'at', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[1], math.ceil((most - level) / rate / 1000) + 1)
end
local until_next = 0
if level < most then until_next = math.ceil((TOKEN - level % TOKEN) / rate) end
return { taken and 1 or 0, math.floor(level / TOKEN), until_next }
