-- test_endpoint: notes an event for one endpoint that nothing has caused but the wish to see it arrive.
-- prelude: outbox
-- KEYS  1 record of the endpoint
-- ARGV  1 endpoint id  2 tenant  3 event type  4 its data (JSON)  5 names for outbox.lua (JSON)
-- returns id of the delivery | '' the endpoint is disabled, or is none
if redis.call('HGET', KEYS[1], 'enabled') ~= '1' then return '' end
local names = cjson.decode(ARGV[5])
return note(names, endpoint_as_listener(names, ARGV[1]), ARGV[2], '', ARGV[3], '', ARGV[4])
