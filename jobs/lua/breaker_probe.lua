-- breaker_probe: lets one of all who ask through to a target whose breaker has been open for long enough, and renews
-- its lease.
-- prelude: breakers
-- KEYS  1 BREAKERS
-- ARGV  1 target  2 who asks  3 ms for which nobody else is let through
-- returns 1 when it may ask, else 0; the state; failures in a row; ms to wait
local now, row = now_ms(), read(KEYS[1], ARGV[1])
local may = row.state == 'closed'
if row.state == 'open' and (row.probe == ARGV[2] or row.until_ms <= now) then
  may, row.probe, row.until_ms = true, ARGV[2], now + ARGV[3]
  write(KEYS[1], ARGV[1], row)
end
return { may and 1 or 0, row.state, #row.failed, wait_ms(row, now) }
