-- money: the account of a job, through which every reservation goes. A prelude.
-- prelude: switches
-- A reservation is checked against, and charged to, the job, the jobs above it, and the meters of its session, user,
-- agent and tenant, in windows of all time, month and day; in all of them or in none. Keys are made of the prefixes that
-- keys.py hands over as `names`. Money is in micro-dollars.
local PERIODS = { 'total', 'month', 'day' }
local KEPT = { month = 400 * 86400, day = 40 * 86400, usage = 400 * 86400, charged = 100 * 86400, session = 90 * 86400 }
local WARNED = { 80, 100 } -- per cent of a limit at which its being reached is written down

-- Redis takes neither 1e+15 nor -0
local function whole(number) return string.format('%.0f', number + 0) end

-- Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (2014), civil_from_days
local function date_of(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02d', year, month, doy - math.floor((153 * mp + 2) / 5) + 1)
end

local function today(now) return date_of(math.floor(now / 86400000)) end

-- when the window ends in which a limit counts, in ms; a total never ends
local function window_end(period, now)
  local day = math.floor(now / 86400000) + 1
  if period == 'total' then return '+inf' end
  if period == 'month' then
    local month = string.sub(today(now), 1, 7)
    while string.sub(date_of(day), 1, 7) == month do day = day + 1 end
  end
  return whole(day * 86400000)
end

local function window(period, day)
  if period == 'total' then return period end
  return period == 'month' and string.sub(day, 1, 7) or day
end

local function open_account(names, id)
  local key = names.job .. id
  local raw = redis.call('HMGET', key, 'tenant', 'agent', 'session_id', 'user', 'ancestors', 'agents')
  local account = { key = key, names = names, tenant = raw[1], agent = raw[2], user = raw[4] or '', agents = raw[6] or raw[2] }
  account.scopes = { { name = 'tenant' }, { name = 'agent:' .. raw[2], default = 'agent:*' } }
  if account.user ~= '' then table.insert(account.scopes, { name = 'user:' .. account.user, default = 'user:*' }) end
  if raw[3] and raw[3] ~= '' then
    table.insert(account.scopes, { name = 'session:' .. raw[3], default = 'session:*', kept = KEPT.session })
  end
  account.jobs = { key }
  for ancestor in string.gmatch(raw[5] or '', '%S+') do
    if redis.call('EXISTS', names.job .. ancestor) == 1 then table.insert(account.jobs, names.job .. ancestor) end
  end
  return account
end

local function meter(account, scope, period, day)
  return account.names.meter .. account.tenant .. ':' .. scope.name .. ':' .. window(period, day)
end

-- every limit that the account is under, with what is settled and reserved against it
local function limits(account, day)
  local found, fields = {}, { 'job:*|total' }
  for _, scope in ipairs(account.scopes) do
    for _, period in ipairs(PERIODS) do
      table.insert(fields, scope.name .. '|' .. period)
      table.insert(fields, (scope.default or scope.name) .. '|' .. period)
    end
  end
  local budgets = redis.call('HMGET', account.names.budgets .. account.tenant, unpack(fields))
  local function add(limit, budget, key, settled, reserved)
    limit.micros = tonumber(budget.micros) -- null is userdata, of which this makes nil
    limit.tokens = tonumber(budget.tokens)
    limit.at_limit, limit.key = budget.at_limit, key
    local raw = redis.call('HMGET', key, settled, reserved, settled .. '_tokens', reserved .. '_tokens')
    limit.settled, limit.used = tonumber(raw[1] or 0), tonumber(raw[1] or 0) + tonumber(raw[2] or 0)
    limit.settled_tokens, limit.used_tokens = tonumber(raw[3] or 0), tonumber(raw[3] or 0) + tonumber(raw[4] or 0)
    table.insert(found, limit)
  end
  for _, key in ipairs(account.jobs) do
    local own = redis.call('HMGET', key, 'limit_micros', 'limit_tokens', 'at_limit')
    add({ scope = 'job', period = 'total', held_by = 'job|total' },
      { micros = own[1], tokens = own[2], at_limit = own[3] or 'stop' }, key, 'spent', 'held')
    if budgets[1] then
      add({ scope = 'job:*', period = 'total', held_by = 'job:*|total' }, cjson.decode(budgets[1]), key, 'spent', 'held')
    end
  end
  for i, scope in ipairs(account.scopes) do
    for j, period in ipairs(PERIODS) do
      local at = 6 * (i - 1) + 2 * j
      local raw = budgets[at] or budgets[at + 1]
      if raw then
        local held_by = budgets[at] and fields[at] or fields[at + 1]
        add({ scope = scope.name, period = period, held_by = held_by }, cjson.decode(raw),
          meter(account, scope, period, day), 'settled', 'reserved')
      end
    end
  end
  return found
end

-- adds to every job and meter of the account; the two names are those of the amount in a record and in a meter
local function charge(account, day, in_job, in_meter, micros, tokens)
  if micros == 0 and tokens == 0 then return end
  for _, key in ipairs(account.jobs) do
    redis.call('HINCRBY', key, in_job, whole(micros))
    redis.call('HINCRBY', key, in_job .. '_tokens', whole(tokens))
  end
  for _, scope in ipairs(account.scopes) do
    for _, period in ipairs(PERIODS) do
      local key = meter(account, scope, period, day)
      local after = redis.call('HINCRBY', key, in_meter, whole(micros))
      redis.call('HINCRBY', key, in_meter .. '_tokens', whole(tokens))
      local kept = scope.kept or KEPT[period]
      if kept and (after == micros or scope.kept) then redis.call('EXPIRE', key, kept) end
    end
  end
end

-- counts the open calls of the job, and keeps the evidence of every kill switch that could stop it: the calls begun and
-- those still open, and when the last one began or ended
local function note(account, now, step)
  redis.call('HINCRBY', account.key, 'open', step)
  for _, switch in ipairs(switches_of(account.tenant, account.agents)) do
    local key = account.names.kill_evidence .. switch
    redis.call('HINCRBY', key, 'open', step)
    if step > 0 then redis.call('HINCRBY', key, 'begun', step) end
    redis.call('HSET', key, step > 0 and 'last_began_ms' or 'last_ended_ms', whole(now))
  end
end

-- the kill switch that covers the job, or nil; what it refuses is counted as evidence
local function killed(account)
  local switch = switched_on(account.names.kill_switch, switches_of(account.tenant, account.agents))[1]
  if switch then redis.call('HINCRBY', account.names.kill_evidence .. switch, 'refused', 1) end
  return switch
end

-- how grave it is that a limit has no room: not so much when open reservations alone are in the way, for they will end
local function gravity(limit, busy)
  if busy then return 1 end
  return limit.at_limit == 'pause' and 2 or 3
end

-- reserves for a call; nil when every limit has room for it, else what the gravest refusal says, and how much room is left
-- call: call_id, reserved (micro-dollars), tokens, and what its ledger row needs should nobody hear of it again
local function reserve(account, call, now)
  if redis.call('HEXISTS', account.key, 'r:' .. call.call_id) == 1 then return nil end
  local day, refusal, gravest, room = today(now), nil, 0, {}
  local function hold(limit, unit, most, settled, used, asked)
    if not most or limit.at_limit == 'warn' then return end
    room[unit] = math.min(room[unit] or most - used, most - used)
    if used + asked <= most then return end
    local busy = settled + asked <= most
    if gravity(limit, busy) <= gravest then return end
    gravest = gravity(limit, busy)
    refusal = { scope = limit.scope, period = limit.period, at_limit = limit.at_limit, unit = unit, busy = busy,
      held_by = limit.held_by, until_ms = window_end(limit.period, now), limit = most, left = most - used }
  end
  for _, limit in ipairs(limits(account, day)) do
    hold(limit, 'usd', limit.micros, limit.settled, limit.used, call.reserved)
    hold(limit, 'tokens', limit.tokens, limit.settled_tokens, limit.used_tokens, call.tokens)
  end
  if refusal then
    refusal.room_micros, refusal.room_tokens = room.usd, room.tokens
    return refusal
  end
  charge(account, day, 'held', 'reserved', call.reserved, call.tokens)
  note(account, now, 1)
  redis.call('HINCRBY', account.key, 'reserved', whole(call.reserved))
  call.day = day
  redis.call('HSET', account.key, 'r:' .. call.call_id, cjson.encode(call))
  return nil
end

-- settles a reservation, once; the days and limits are those of the reservation
-- bill: call_id, settled (micro-dollars), tokens (left out: what was reserved), model, role, and counters (name ->
-- amount) for the day's usage, in which it is one of `calls` (1 when left out)
-- returns the data of a budget.reached entry for each limit of which a share was passed
local function settle(account, bill, now)
  local raw = redis.call('HGET', account.key, 'r:' .. bill.call_id)
  if not raw then return {} end
  local call = cjson.decode(raw)
  redis.call('HDEL', account.key, 'r:' .. bill.call_id)
  bill.tokens = bill.tokens or call.tokens
  local before = limits(account, call.day)
  charge(account, call.day, 'held', 'reserved', -call.reserved, -call.tokens)
  charge(account, call.day, 'spent', 'settled', bill.settled, bill.tokens)
  note(account, now, -1)
  redis.call('HINCRBY', account.key, 'reserved', whole(-call.reserved))
  redis.call('HINCRBY', account.key, 'cost', whole(bill.settled))

  local usage = account.names.usage .. account.tenant .. ':' .. call.day
  local row = cjson.encode({ account.agent, account.user, bill.model, bill.role }) .. ':'
  redis.call('HINCRBY', usage, row .. 'cost', whole(bill.settled))
  redis.call('HINCRBY', usage, row .. 'calls', bill.calls or 1)
  for name, amount in pairs(bill.counters) do
    if amount ~= 0 then redis.call('HINCRBY', usage, row .. name, whole(amount)) end
  end
  local charged = account.names.charged .. account.tenant .. ':' .. call.day
  redis.call('EXPIRE', usage, KEPT.usage)
  if redis.call('SADD', charged, string.sub(account.key, #account.names.job + 1)) == 1 then
    redis.call('EXPIRE', charged, KEPT.charged)
  end

  local reached = {}
  for _, limit in ipairs(before) do
    for _, percent in ipairs(WARNED) do
      local function passed(most, was, more) return most and was * 100 < most * percent and (was + more) * 100 >= most * percent end
      local function about() return { scope = limit.scope, period = limit.period, percent = percent, at_limit = limit.at_limit } end
      if passed(limit.micros, limit.settled, bill.settled) then
        local entry = about()
        entry.spent, entry.limit = limit.settled + bill.settled, limit.micros
        table.insert(reached, entry)
      end
      if passed(limit.tokens, limit.settled_tokens, bill.tokens) then
        local entry = about()
        entry.spent_tokens, entry.limit_tokens = limit.settled_tokens + bill.tokens, limit.tokens
        table.insert(reached, entry)
      end
    end
  end
  return reached
end

-- notes that a batch has a call: its reservation outlives the attempt, and its job waits for the batch
-- call: call_id, batch_id, and the ms after which to look at the batch
local function submit(account, call, now)
  local raw = redis.call('HGET', account.key, 'r:' .. call.call_id)
  if not raw then return end
  local reserved = cjson.decode(raw)
  reserved.batch_id = call.batch_id
  redis.call('HSET', account.key, 'r:' .. call.call_id, cjson.encode(reserved))
  redis.call('SADD', account.names.batch .. call.batch_id, string.sub(account.key, #account.names.job + 1))
  redis.call('ZADD', account.names.batches, 'LT', whole(now + call.look_ms), call.batch_id)
end

-- settles at the worst case what an attempt reserved and nobody will settle any more: until the job ends, neither what a
-- batch has nor the price of a tool, whose call the next attempt still has open
-- returns the entries that say so, each as its type and data, and what `settle` returned of them
local function settle_open(account, now, ends)
  local lost, reached, raw = {}, {}, redis.call('HGETALL', account.key)
  for i = 1, #raw, 2 do
    local call = string.sub(raw[i], 1, 2) == 'r:' and cjson.decode(raw[i + 1])
    if call and (ends or not (call.batch_id or call.role == 'tool')) then
      local bill = { call_id = call.call_id, settled = call.reserved, model = call.model, role = call.role, counters = {} }
      for _, about in ipairs(settle(account, bill, now)) do table.insert(reached, about) end
      local data = { call_id = call.call_id, step = call.step, price_version = call.price_version,
        reserved = call.reserved, settled = call.reserved, reason = 'worst_case' }
      if call.role == 'tool' then
        data.name = call.model
        table.insert(lost, { 'tool.charged', data })
      elseif call.role == 'embedding' then
        data.model, data.role, data.usage = call.model, call.role, cjson.null
        table.insert(lost, { 'embedding.completed', data })
      else
        redis.call('HINCRBY', account.key, 'model_calls', 1)
        data.model, data.role, data.code, data.usage = call.model, call.role, 'lost', cjson.null
        data.message = 'the worker was lost during the call; it is settled at its worst case'
        table.insert(lost, { 'model.failed', data })
      end
    end
  end
  return lost, reached
end
