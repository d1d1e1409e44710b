-- Sessions that come and go as a whole. Goes on where redis_sessions.lua ends.
--
-- A session that comes is put together under keys of its own, which end by themselves, is read again from there
-- by who brings it, and only then takes its place, in one step. One that is held has the word of who holds it in
-- `h`; commits look there only while the head says so.

local HOLD_SECONDS, STAGE_SECONDS = 60, 600

local function staged(key, holder)
  return key .. 'r:' .. holder .. ':'
end

-- Say in the head whether the session is held.
local function mark(key, held)
  local head = redis.call('HGET', key .. 'v', '')
  local claim = tonumber(string.match(head, '(%d) %S+$')) % 2 + (held and 2 or 0)
  redis.call('HSET', key .. 'v', '', (string.gsub(head, '%d( %S+)$', claim .. '%1')))
end

local function finish(key, epoch)
  wipe(key)
  redis.call('SET', key .. 'x', epoch, 'EX', TOMB_SECONDS)
  redis.call('SPUBLISH', key .. 'c', '- ' .. epoch)
end

-- All that a session is: the head, declarations, records, log, then name, token, owner and seconds of each claim,
-- then label, place and records of each label.
local function export(keys, args)
  local key = keys[1]
  local head = redis.call('HGET', key .. 'v', '')
  if not head then
    return gone(key)
  end
  local time = now()
  local claims, labels = {}, {}
  for _, name in ipairs(redis.call('HKEYS', key .. 'c')) do
    for _, held in ipairs(chain_of(key, name, time)) do
      claims[#claims + 1] = {name, held[1], held[2], string.format('%.6f', tonumber(held[3]) - time)}
    end
  end
  for _, label in ipairs(redis.call('HKEYS', key .. 't')) do
    labels[#labels + 1] = {
      label, redis.call('HGET', key .. 't', label), redis.call('HGETALL', key .. 't:' .. label)
    }
  end
  return {
    'EXPORT', head, redis.call('HGETALL', key .. 'd'), redis.call('HGETALL', key .. 'v'),
    redis.call('XRANGE', key .. 'l', '-', '+'), claims, labels
  }
end

-- Put a part of a session that comes where it can be read again. A part may come twice. 1 holder, 2 part;
-- then of `l` id, number of fields, fields; of `c` name, token, owner, seconds; of others field and value.
local function stage(keys, args)
  local key, part = staged(keys[1], args[1]), args[2]
  if part == 'l' then
    local at = 3
    while at <= #args do
      local count = tonumber(args[at + 1])
      if #redis.call('XRANGE', key .. 'l', args[at], args[at]) == 0 then
        redis.call('XADD', key .. 'l', args[at], unpack(args, at + 2, at + 1 + count))
      end
      at = at + 2 + count
    end
  elseif part == 'c' then
    local time = now()
    for i = 3, #args, 4 do
      local chain = {}
      for _, held in ipairs(chain_of(key, args[i], time)) do
        if held[1] ~= args[i + 1] then
          chain[#chain + 1] = held
        end
      end
      chain[#chain + 1] = {args[i + 1], args[i + 2], string.format('%.6f', time + tonumber(args[i + 3]))}
      keep_chain(key, args[i], chain)
    end
  else
    for i = 3, #args, 2 do
      redis.call('HSET', key .. part, args[i], args[i + 1])
    end
  end
  redis.call('EXPIRE', key .. part, STAGE_SECONDS)
  return 1
end

-- Let a session that was put together take its place, held. 1 holder.
local function arrive(keys, args)
  local key, holder = keys[1], args[1]
  local from = staged(key, holder)
  local epoch, rev, _, decl = head_of(key)
  if epoch and redis.call('GET', key .. 'h') == holder then
    return 1
  end
  if redis.call('HEXISTS', from .. 'v', '') == 0 then
    return 0  -- what was put there last is not there: this server has taken over without it
  end
  if epoch then
    local used = tonumber(rev) + tonumber(decl) + redis.call('EXISTS', key .. 't', key .. 'c')
    local heard = redis.call('PUBSUB', 'SHARDNUMSUB', key .. 'c')[2]
    if used + heard > 0 then
      return {'EXISTS', epoch, rev, used}
    end
  end
  wipe(key)
  redis.call('DEL', key .. 'm', key .. 'x')
  local parts = {'v', 'd', 'l', 'c', 't'}
  for _, label in ipairs(redis.call('HKEYS', from .. 't')) do
    parts[#parts + 1] = 't:' .. label
  end
  for _, part in ipairs(parts) do
    if redis.call('EXISTS', from .. part) == 1 then
      redis.call('RENAME', from .. part, key .. part)
      redis.call('PERSIST', key .. part)
    end
  end
  redis.call('SET', key .. 'h', holder, 'EX', HOLD_SECONDS)
  mark(key, true)
  return 1
end

-- Let nobody commit for a while. 1 holder.
local function hold(keys, args)
  local key = keys[1]
  if not head_of(key) then
    return gone(key)
  end
  local holder = redis.call('GET', key .. 'h')
  if holder and holder ~= args[1] then
    return {'MOVING'}
  end
  redis.call('SET', key .. 'h', args[1], 'EX', HOLD_SECONDS)
  mark(key, true)
  return 1
end

-- Let commits go on; whether nobody could until now. 1 holder.
local function release(keys, args)
  local key = keys[1]
  if redis.call('GET', key .. 'h') ~= args[1] then
    return 0
  end
  redis.call('DEL', key .. 'h')
  mark(key, false)
  return 1
end

-- End a session that was held all the time, and keep where it went. 1 holder, 2 id there, 3 url.
local function forward(keys, args)
  local key = keys[1]
  local epoch = head_of(key)
  if not epoch then
    local moved = redis.call('GET', key .. 'm') or ''
    return string.sub(moved, 1, #args[1] + 1) == args[1] .. ' ' and 1 or 0
  end
  if redis.call('GET', key .. 'h') ~= args[1] then
    return 0
  end
  redis.call('SET', key .. 'm', args[1] .. ' ' .. args[2] .. ' ' .. args[3])
  finish(key, epoch)
  return 1
end

-- Take a session that has come away again. 1 holder.
local function abandon(keys, args)
  local key = keys[1]
  wipe(staged(key, args[1]))
  local epoch = head_of(key)
  if epoch and redis.call('GET', key .. 'h') == args[1] then
    finish(key, epoch)
  end
  return 1
end

redis.register_function('dspex_1_stage', stage)
redis.register_function('dspex_1_arrive', arrive)
redis.register_function('dspex_1_hold', hold)
redis.register_function{function_name = 'dspex_1_release', callback = release, flags = {'allow-oom'}}
redis.register_function{function_name = 'dspex_1_forward', callback = forward, flags = {'allow-oom'}}
redis.register_function{function_name = 'dspex_1_abandon', callback = abandon, flags = {'allow-oom'}}
redis.register_function{function_name = 'dspex_1_export', callback = export, flags = {'no-writes'}}
