-- handle_slots: writes due slots of a schedule into its ledger and says which of them fire now. It is done once for each
-- slot, however many schedulers try: whoever finds the cursor where it was moves it on in the same step.
-- prelude: slots
-- KEYS  1 schedule  2 slot ledger  3 its rows  4 open runs  5 waiting slots  6 FIRING  7 SCHEDULES  8 STATS
-- ARGV  1 schedule id  2 revision  3 cursor as it was read  4 cursor as it is to be  5 when the next slot is due, in ms
--       ('': there is none)  6 overlap policy  7 how many runs may be open  8 how many runs there may ever be (0: any
--       number)  9 the due slots, as rows of slots.lua (JSON list)  10 prefix of job records  11 statuses that have ended
--       (JSON object)  12 rows that are kept  13 slots that may wait  14 ms after which another submits
--       15 what the field of a counter begins with
-- returns {'stale'} | {'done', slots to submit}
local found = redis.call('HMGET', KEYS[1], 'revision', 'cursor_ms', 'state', 'runs')
if found[1] ~= ARGV[2] or found[2] ~= ARGV[3] or found[3] ~= 'active' then return { 'stale' } end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows, ended = cjson.decode(ARGV[9]), cjson.decode(ARGV[11])
for _, row in ipairs(rows) do
  if row.due > now then return { 'stale' } end
end
local ledger = {
  index = KEYS[2], rows = KEYS[3], open = KEYS[4], firing = KEYS[6], stats = KEYS[8], counter = ARGV[15], schedule = ARGV[1],
}
local overlap, most_open, most_runs, retry = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[14])
local runs, fired = tonumber(found[4]), {}

local open = 0
local jobs = redis.call('HGETALL', KEYS[4])
for i = 1, #jobs, 2 do
  local status = redis.call('HGET', ARGV[10] .. jobs[i], 'status')
  local submitting = not status and redis.call('ZSCORE', KEYS[6], member(ledger, jobs[i + 1]))
  if submitting or (status and not ended[status]) then
    open = open + 1
  else
    redis.call('HDEL', KEYS[4], jobs[i])
  end
end

local function used_up() return most_runs > 0 and runs >= most_runs end
local function start(row)
  fire(ledger, row, now, retry)
  open, runs = open + 1, runs + 1
  table.insert(fired, row.slot)
end

for _, slot in ipairs(redis.call('ZRANGE', KEYS[5], 0, -1)) do
  local row = cjson.decode(redis.call('HGET', KEYS[3], slot))
  if used_up() then
    redis.call('ZREM', KEYS[5], slot)
    skip(ledger, row, 'ended', now)
  elseif open < most_open or overlap ~= 'queue' then
    redis.call('ZREM', KEYS[5], slot)
    row.outcome, row.reason = row.reason == 'missed' and 'caught_up' or 'late', row.reason == 'missed' and 'missed' or 'overlap'
    start(row)
  end
end

for _, row in ipairs(rows) do
  if used_up() then break end
  local full = open >= most_open and overlap ~= 'allow' and overlap ~= 'cancel_previous'
  local waiting = redis.call('ZCARD', KEYS[5])
  if row.outcome == 'skipped' then
    skip(ledger, row, row.reason, now)
  elseif overlap == 'skip' and full then
    skip(ledger, row, 'overlap', now)
  elseif overlap == 'queue' and (full or waiting > 0) then
    if waiting >= tonumber(ARGV[13]) then
      skip(ledger, row, 'queue_full', now)
    else
      row.outcome, row.reason = 'waiting', row.outcome == 'caught_up' and 'missed' or 'overlap'
      write(ledger, row, now)
      redis.call('ZADD', KEYS[5], row.at, row.slot)
    end
  else
    start(row)
  end
end

local excess = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[12])
for _, slot in ipairs(excess > 0 and redis.call('ZRANGE', KEYS[2], 0, excess - 1) or {}) do
  if not redis.call('ZSCORE', KEYS[5], slot) and not redis.call('ZSCORE', KEYS[6], member(ledger, slot)) then
    redis.call('ZREM', KEYS[2], slot)
    redis.call('HDEL', KEYS[3], slot)
  end
end

redis.call('HSET', KEYS[1], 'cursor_ms', ARGV[4], 'runs', runs)
local waits = redis.call('ZCARD', KEYS[5]) > 0
if not waits and (used_up() or ARGV[5] == '') then
  redis.call('HSET', KEYS[1], 'state', 'ended')
  redis.call('ZREM', KEYS[7], ARGV[1])
else
  local following = used_up() and math.huge or tonumber(ARGV[5]) or math.huge
  redis.call('ZADD', KEYS[7], string.format('%.0f', waits and math.min(following, now + 1000) or following), ARGV[1])
end
return { 'done', fired }
