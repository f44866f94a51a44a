-- trigger_slot: writes a slot of this moment that somebody asked for; whatever runs, it fires.
-- prelude: slots
-- KEYS  1 schedule  2 slot ledger  3 its rows  4 open runs  5 FIRING
-- ARGV  1 schedule id  2 the slot's name  3 id of its job  4 ms after which another submits
-- returns 1 | 0 when the schedule is not there
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ledger = { index = KEYS[2], rows = KEYS[3], open = KEYS[4], firing = KEYS[5], schedule = ARGV[1] }
local row = { slot = ARGV[2], at = now, due = now, outcome = 'fired', reason = 'triggered', job = ARGV[3] }
fire(ledger, row, now, tonumber(ARGV[4]))
return 1
