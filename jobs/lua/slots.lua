-- slots: writing rows of a schedule's slot ledger. A prelude.
-- `ledger` is {index = sorted set of slots, rows = hash of rows, open = hash of open runs, firing = FIRING,
-- stats = STATS, counter = what the field of a counter begins with, schedule = schedule id}. A row is JSON: `slot`, `at`
-- and `due` (ms), `outcome`, `reason`, `job` (the id that its job has, or would have), `handled` (ms).

local function member(ledger, slot) return ledger.schedule .. ' ' .. slot end

local function count(ledger, outcome) redis.call('HINCRBY', ledger.stats, ledger.counter .. outcome, 1) end

local function write(ledger, row, now)
  row.handled = now
  redis.call('ZADD', ledger.index, row.at, row.slot)
  redis.call('HSET', ledger.rows, row.slot, cjson.encode(row))
end

local function skip(ledger, row, reason, now)
  row.outcome, row.reason = 'skipped', reason
  write(ledger, row, now)
  count(ledger, 'skipped')
end

-- From now on the slot's job is to be submitted, by whoever comes first after `retry` ms when nobody has said it is.
local function fire(ledger, row, now, retry)
  write(ledger, row, now)
  redis.call('ZADD', ledger.firing, now + retry, member(ledger, row.slot))
  redis.call('HSET', ledger.open, row.job, row.slot)
end
