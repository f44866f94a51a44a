-- breakers: a circuit breaker for each target, by the clock of Redis. A prelude.
-- A row is JSON: `state` closed or open; `failed`, when calls failed in a row, in ms; `until_ms`, until when nobody may
-- ask; `probe`, who may ask at present; `opened`, how often it went from closed to open.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function read(hash, target)
  local found = redis.call('HGET', hash, target)
  return found and cjson.decode(found) or { state = 'closed', failed = {}, until_ms = 0, probe = '', opened = 0 }
end

local function write(hash, target, row)
  redis.call('HSET', hash, target, cjson.encode(row))
end

-- for how many ms nobody but the one who probes may ask; 0 when closed
local function wait_ms(row, now)
  return row.state == 'open' and math.max(0, row.until_ms - now) or 0
end
