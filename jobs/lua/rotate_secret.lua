-- rotate_secret: gives webhooks a new secret; the ones before it sign for a while beside it.
-- KEYS  1 secrets
-- ARGV  1 the new secret  2 ms for which the ones before go on signing  3 '1': only when there is none
-- returns the secrets that sign, the new one first
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known, signing = redis.call('HGETALL', KEYS[1]), {}
local changes = ARGV[3] ~= '1' or #known == 0
local ends = now + ARGV[2]
for i = 1, #known, 2 do
  local until_ms = tonumber(known[i + 1])
  if changes and not (until_ms and until_ms <= ends) then
    until_ms = ends
    redis.call('HSET', KEYS[1], known[i], string.format('%.0f', ends))
  end
  if until_ms and until_ms <= now then
    redis.call('HDEL', KEYS[1], known[i])
  else
    table.insert(signing, until_ms and #signing + 1 or 1, known[i])
  end
end
if changes then
  redis.call('HSET', KEYS[1], ARGV[1], '')
  table.insert(signing, 1, ARGV[1])
end
return signing
