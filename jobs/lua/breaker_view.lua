-- breaker_view: every breaker that was ever used.
-- prelude: breakers
-- KEYS  1 BREAKERS
-- ARGV  none
-- returns a list, for each: target, state, failures in a row, ms to wait, how often it opened
local now, found = now_ms(), {}
for _, target in ipairs(redis.call('HKEYS', KEYS[1])) do
  local row = read(KEYS[1], target)
  table.insert(found, { target, row.state, #row.failed, wait_ms(row, now), row.opened })
end
return found
