-- breaker_report: takes down what became of a call to a target.
-- prelude: breakers
-- KEYS  1 BREAKERS
-- ARGV  1 target  2 1 when the target answered, else 0  3 who reports, when it was let through as the probe, else ''
--       4 failures in a row that open the breaker  5 ms within which they count  6 ms for which it stays open
-- returns what happened (opened, closed, kept_open or ''), the state, failures in a row and ms to wait
local now, row, answered = now_ms(), read(KEYS[1], ARGV[1]), ARGV[2] == '1'
local probes, happened = ARGV[3] ~= '' and row.probe == ARGV[3], ''
if row.state == 'closed' then
  local failed = {}
  for _, ms in ipairs(answered and {} or row.failed) do
    if ms > now - ARGV[5] then table.insert(failed, ms) end
  end
  if not answered then table.insert(failed, now) end
  row.failed = failed
  if #failed >= tonumber(ARGV[4]) then
    happened, row.state, row.failed, row.until_ms, row.opened = 'opened', 'open', {}, now + ARGV[6], row.opened + 1
  end
elseif probes and answered then
  happened, row.state, row.probe, row.until_ms = 'closed', 'closed', '', 0
elseif probes then
  happened, row.probe, row.until_ms = 'kept_open', '', now + ARGV[6]
end
write(KEYS[1], ARGV[1], row) -- what was begun before it opened says nothing of the target as it is now
return { happened, row.state, #row.failed, wait_ms(row, now) }
