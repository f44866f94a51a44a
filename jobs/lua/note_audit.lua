-- note_audit: appends an entry to an audit log.
-- KEYS  1 log  2 the logs that there are
-- ARGV  1 about how many entries to keep ('' all)  2.. pairs of field and value
-- returns the entry's id in the stream
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
if ARGV[1] ~= '' then redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[1]) end
if redis.call('XLEN', KEYS[1]) == 1 then redis.call('SADD', KEYS[2], KEYS[1]) end
return id
