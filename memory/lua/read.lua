-- read: a part of a session's conversation, with its place in the whole.
-- KEYS  1 the session's messages  2 what is known of them
-- ARGV  1 offset of the first message wanted  2 offset after the last one, -1 for all  3 most messages, -1 for all
--       4 time to live in seconds that the conversation gets by being read, 0 for none
-- returns {base, generation, offset of the first, end of all, milliseconds it is kept (-2: there is none), messages}
local known = redis.call('HMGET', KEYS[2], 'base', 'generation')
local base, length = tonumber(known[1] or 0), redis.call('LLEN', KEYS[1])
local first, stop, most = math.max(ARGV[1] - base, 0), tonumber(ARGV[2]), tonumber(ARGV[3])
if ARGV[4] ~= '0' then
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
-- of a part that a summary has meanwhile taken the place of, the summary is what is left
local last = stop < 0 and length - 1 or math.max(stop - base, 1) - 1
if most >= 0 then last = math.min(last, first + most - 1) end
local messages = redis.call('LRANGE', KEYS[1], first, last)
return {base, tonumber(known[2] or 0), base + first, base + length, redis.call('PTTL', KEYS[1]), messages}
