-- submit: writes a new job, its first journal entry, its indexes and its idempotency key, or nothing.
-- prelude: switches
-- prelude: outbox
-- KEYS  1 record  2 journal  3 idempotency key  4 open index  5 QUEUED  6 DUE  7 EXPIRING  8 session's jobs
--       9 index of all jobs  10 job's blobs  11 FILES  12 KILL_SWITCH
--       13 record, 14 journal and 15 open children of the parent (any keys when it has none)
--       16.. the job's files, then the blobs that the entries refer to
-- ARGV  1 job id  2 status  3 fingerprint of the request ('' without an idempotency key)  4 seconds it is kept
--       5 due time in ms (0 for none)  6 expiry time in ms (0 for none)  7 '1' when the job takes its place in a session now
--       8 data of the first entry  9 the job's files, as FILES has them (JSON list)
--       10 kill switches that could stop it (JSON list)  11 what the parent's journal says of it ('' without a parent)
--       12 the parent's channel  13 token of the parent's attempt  14 names for outbox.lua (JSON)
--       15 number of record fields n, then n pairs of field and value, then triples of type, attempt, data: entries that
--       the new job starts with (a fork), then each blob's content
-- A job that is there already, by its id, is not made again: a child, or the job of a schedule's slot.
-- returns {'created', job id, ms} | {'replayed', first job id} | {'conflict', first job id}
--       | {'stale', job id} the attempt that would start the child does not own the parent any more
--       | {'killed', the kill switch that stops it, its state as JSON}
if ARGV[3] ~= '' then
  local first = redis.call('HMGET', KEYS[3], 'job_id', 'fingerprint')
  if first[1] then
    return { first[2] == ARGV[3] and 'replayed' or 'conflict', first[1] }
  end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return { 'replayed', ARGV[1] } end
if ARGV[11] ~= '' then
  if redis.call('HGET', KEYS[13], 'token') ~= ARGV[13] then return { 'stale', ARGV[1] } end
end
local stopped, state = switched_on(KEYS[12], cjson.decode(ARGV[10]))
if state then return { 'killed', stopped[1], state } end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], 'job_id', ARGV[1], 'fingerprint', ARGV[3])
  redis.call('EXPIRE', KEYS[3], ARGV[4])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local files, fields = cjson.decode(ARGV[9]), tonumber(ARGV[15])
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'created_ms', now, unpack(ARGV, 16, 15 + 2 * fields))
for i, id in ipairs(files) do
  if redis.call('EXISTS', KEYS[15 + i]) == 1 then redis.call('HINCRBY', KEYS[15 + i], 'jobs', 1) end
  redis.call('ZREM', KEYS[11], id)
end
local first_blob = 16 + #files
local blobs = #ARGV - (#KEYS - first_blob + 1)
for i = first_blob, #KEYS do
  redis.call('SADD', KEYS[10], KEYS[i])
  redis.call('HINCRBY', KEYS[i], 'jobs', 1)
  redis.call('HSETNX', KEYS[i], 'data', ARGV[blobs + i - first_blob + 1])
end
local names, about = cjson.decode(ARGV[14]), redis.call('HMGET', KEYS[1], 'tenant', 'webhook')
local first = redis.call('XADD', KEYS[2], '*', 't', 'job.queued', 'a', 0, 'd', ARGV[8])
outbox(names, about[1], ARGV[1], about[2])('job.queued', first)
for i = 16 + 2 * fields, blobs, 3 do
  redis.call('XADD', KEYS[2], '*', 't', ARGV[i], 'a', ARGV[i + 1], 'd', ARGV[i + 2])
end
redis.call('ZADD', KEYS[4], now, ARGV[1])
redis.call('ZADD', KEYS[9], now, ARGV[1])
if ARGV[2] == 'queued' then redis.call('ZADD', KEYS[5], now, ARGV[1]) end
if ARGV[5] ~= '0' then redis.call('ZADD', KEYS[6], ARGV[5], ARGV[1]) end
if ARGV[6] ~= '0' then redis.call('ZADD', KEYS[7], ARGV[6], ARGV[1]) end
if ARGV[11] ~= '' then
  redis.call('SADD', KEYS[15], ARGV[1])
  local parent = redis.call('HMGET', KEYS[13], 'attempt', 'id', 'webhook')
  local entry = redis.call('XADD', KEYS[14], '*', 't', 'child.started', 'a', parent[1], 'd', ARGV[11])
  outbox(names, about[1], parent[2], parent[3])('child.started', entry)
  redis.call('PUBLISH', ARGV[12], '')
end
if ARGV[7] == '1' then redis.call('RPUSH', KEYS[8], ARGV[1]) end
return { 'created', ARGV[1], now }
