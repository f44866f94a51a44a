-- record: appends journal entries of a running attempt, fenced by its token; a repeated write changes nothing.
-- prelude: money
-- prelude: outbox
-- KEYS  1 record  2 journal  3 job's blobs  4.. blobs that the entries refer to
-- ARGV  1 token  2 number of this write within the attempt, from 1  3 channel  4 job id
--       5 money (JSON: `reserve`, `submit` and `settle`, lists as money.lua takes them; '' for none)
--       6 names for money.lua (JSON)
--       7 names for outbox.lua (JSON)  8 number of counters n, then n pairs of record field and increment, then pairs of entry type and data,
--       then each blob's content
-- returns -1 stale | flags: 0 none, 1 cancel asked for, 2 pause asked for
--       | {'refused', JSON of why a reservation does not fit} | {'killed', field of the switch}: nothing was written
local record = redis.call('HMGET', KEYS[1], 'token', 'writes', 'attempt', 'cancel', 'pause', 'tenant', 'webhook')
if record[1] ~= ARGV[1] then return -1 end
local flags = record[4] and 1 or record[5] and 2 or 0
if tonumber(ARGV[2]) <= tonumber(record[2]) then return flags end

local reached = {}
if ARGV[5] ~= '' then
  local money, time = cjson.decode(ARGV[5]), redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local account = open_account(cjson.decode(ARGV[6]), ARGV[4])
  for _, call in ipairs(money.reserve) do -- at most one, so that a refusal leaves nothing half done
    local switch = killed(account)
    if switch then return { 'killed', switch } end
    local refusal = reserve(account, call, now)
    if refusal then return { 'refused', cjson.encode(refusal) } end
  end
  for _, call in ipairs(money.submit) do submit(account, call, now) end
  for _, bill in ipairs(money.settle) do
    for _, about in ipairs(settle(account, bill, now)) do table.insert(reached, about) end
  end
end

redis.call('HSET', KEYS[1], 'writes', ARGV[2])
local first = 9 + 2 * ARGV[8]
for i = 9, first - 1, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
local blobs = #ARGV - (#KEYS - 3)
for i = 4, #KEYS do
  if redis.call('SADD', KEYS[3], KEYS[i]) == 1 then redis.call('HINCRBY', KEYS[i], 'jobs', 1) end
  redis.call('HSETNX', KEYS[i], 'data', ARGV[blobs + i - 3])
end
local tell = outbox(cjson.decode(ARGV[7]), record[6], ARGV[4], record[7])
for i = first, blobs, 2 do
  -- a turn is progress: only attempts that are lost in a row make a job poison
  if ARGV[i] == 'model.completed' then redis.call('HDEL', KEYS[1], 'lost') end
  tell(ARGV[i], redis.call('XADD', KEYS[2], '*', 't', ARGV[i], 'a', record[3], 'd', ARGV[i + 1]))
end
for _, about in ipairs(reached) do
  tell('budget.reached', redis.call('XADD', KEYS[2], '*', 't', 'budget.reached', 'a', record[3], 'd', cjson.encode(about)))
end
redis.call('PUBLISH', ARGV[3], '')
return flags
