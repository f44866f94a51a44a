-- decide_approval: decides about one call that a parked job waits with, once, and says so in the job's journal.
-- prelude: approvals
-- prelude: outbox
-- KEYS  1 approval  2 record of its job  3 the job's journal
-- ARGV  1 approval id  2 job id  3 status that it gets  4 data of the entry  5 channel  6 names for approvals.lua (JSON)
--       7 '1': only when it has expired; else only when it has not  8 names for outbox.lua (JSON)
-- returns {'decided', number of the job's that are still pending} | {'refused', status} | {'expired'}
--       | {'early'} it has not expired | {'missing'}
local approval = redis.call('HMGET', KEYS[1], 'status', 'expires_ms', 'tenant')
if not approval[1] then return { 'missing' } end
if approval[1] ~= 'pending' then return { 'refused', approval[1] } end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local over = approval[2] ~= '+inf' and tonumber(approval[2]) <= now
if ARGV[7] == '1' and not over then return { 'early' } end
if ARGV[7] ~= '1' and over then return { 'expired' } end

local names = cjson.decode(ARGV[6])
close(names, approval[3], ARGV[1], ARGV[3], ARGV[4], now)
local record = redis.call('HMGET', KEYS[2], 'attempt', 'webhook')
local entry = redis.call('XADD', KEYS[3], '*', 't', 'approval.decided', 'a', record[1] or 0, 'd', ARGV[4])
outbox(cjson.decode(ARGV[8]), approval[3], ARGV[2], record[2])('approval.decided', entry)
redis.call('PUBLISH', ARGV[5], '')
local pending = #undecided(names, ARGV[2])
if pending == 0 then redis.call('ZADD', names.decided, now, ARGV[2]) end
return { 'decided', pending }
