-- settle_slot: takes down that a slot's job is submitted, or that it cannot be; once.
-- prelude: slots
-- KEYS  1 slot ledger  2 its rows  3 open runs  4 FIRING  5 STATS
-- ARGV  1 schedule id  2 slot  3 why its job cannot be submitted ('': it is)  4 what the field of a counter begins with
-- returns 1 | 0 when somebody has taken it down before
local ledger = { index = KEYS[1], rows = KEYS[2], open = KEYS[3], firing = KEYS[4], stats = KEYS[5], counter = ARGV[4],
  schedule = ARGV[1] }
if redis.call('ZREM', KEYS[4], member(ledger, ARGV[2])) == 0 then return 0 end
local text = redis.call('HGET', KEYS[2], ARGV[2])
if not text then return 1 end -- the schedule is gone
local row = cjson.decode(text)
if ARGV[3] == '' then
  count(ledger, row.outcome)
  return 1
end
redis.call('HDEL', KEYS[3], row.job)
skip(ledger, row, ARGV[3], row.handled)
return 1
