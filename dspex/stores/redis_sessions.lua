-- Sessions as a whole: how a copy follows, how one begins and ends. Goes on where redis_functions.lua ends.

local LARGE = 256 * 1024

local function size_of(reply)
  if type(reply) == 'string' then
    return #reply
  end
  local size = 0
  for _, one in ipairs(reply) do
    size = size + size_of(one)
  end
  return size
end

-- What a copy at an applied revision misses. 1 epoch, 2 applied rev, 3 its nonce, 4 known declarations, 5 '1' if
-- it asks where it hears: servers close a connection that subscribes when too much waits to be sent on it.
-- Answers: how, epoch, rev, nonce, decl, new declarations, then the entries of the log or all records.
local function since(keys, args)
  local key = keys[1]
  local epoch, rev, nonce, decl, floor = head_of(key)
  if not epoch then
    return gone(key)
  end
  local applied = tonumber(args[2])
  rev, floor = tonumber(rev), tonumber(floor)
  local new = {}
  if tonumber(decl) > tonumber(args[4]) or args[1] ~= epoch then
    new = redis.call('HGETALL', key .. 'd')
  end
  local function answer(how, what)
    if args[5] == '1' and size_of(what) > LARGE then
      return {'LARGE'}
    end
    return {how, epoch, tostring(rev), nonce, decl, new, what}
  end
  if args[1] == epoch then
    if applied > rev or (applied == rev and args[3] ~= nonce) then
      return {'FORKED'}
    end
    if applied == rev then
      return answer('LOG', {})
    end
    if applied >= floor then
      local entries = redis.call('XRANGE', key .. 'l', applied, '+', 'COUNT', 513)
      local first = entries[1]
      if first and string.match(first[1], '^(%d+)') == args[2] then
        if first[1] ~= applied .. '-' .. args[3] then
          return {'FORKED'}
        end
        table.remove(entries, 1)
      elseif applied > floor then
        return {'FORKED'}
      end
      return answer('LOG', entries)
    end
  end
  return answer('ALL', redis.call('HGETALL', key .. 'v'))
end

-- The log as it is, from a revision on. 1 rev, or '' for all.
local function log(keys, args)
  local key = keys[1]
  local epoch, rev, _, decl, floor = head_of(key)
  if not epoch then
    return gone(key)
  end
  local from = args[1] == '' and '-' or string.format('%.0f', tonumber(args[1]) + 1)
  return {'LOG', epoch, rev, floor, decl, redis.call('XRANGE', key .. 'l', from, '+')}
end

-- What a label stands for. 1 label.
local function tagged(keys, args)
  local key = keys[1]
  local epoch = head_of(key)
  if not epoch then
    return gone(key)
  end
  local at = redis.call('HGET', key .. 't', args[1])
  if not at then
    return {'UNKNOWN', redis.call('HKEYS', key .. 't')}
  end
  return {'TAG', epoch, at, redis.call('HGETALL', key .. 'd'), redis.call('HGETALL', key .. 't:' .. args[1])}
end

-- Begin a session, unless there is one. 1 epoch.
local function create(keys, args)
  local key = keys[1]
  if redis.call('HEXISTS', key .. 'v', '') == 1 or redis.call('EXISTS', key .. 'm') == 1 then
    return 0
  end
  local _, stamp = now()
  redis.call('DEL', key .. 'x')
  redis.call('HSET', key .. 'v', '', args[1] .. ' 0 0 0 0 0 0 ' .. (3 * HISTORY) .. ' 0 0 0 0 ' .. stamp)
  return 1
end

-- End a session, or forget where it has moved.
local function delete(keys, args)
  local key = keys[1]
  local epoch = head_of(key)
  if not epoch then
    if not broken(key) then
      return redis.call('DEL', key .. 'm')
    end
    epoch = '?'
  end
  wipe(key)
  redis.call('SET', key .. 'x', epoch, 'EX', TOMB_SECONDS)
  redis.call('SPUBLISH', key .. 'c', '- ' .. epoch)
  return 1
end

-- Give a history that has lost commits another name. 1 epoch, 2 a revision that was seen, 3 its nonce, 4 epoch.
local function renew(keys, args)
  local key = keys[1]
  local head = redis.call('HGET', key .. 'v', '')
  local epoch, rev, nonce, decl, floor = string.match(head or '', HEAD)
  if epoch ~= args[1] then
    return 0
  end
  local seen = tonumber(args[2])
  if seen <= tonumber(rev) then
    local entry = redis.call('XRANGE', key .. 'l', seen, seen)[1]
    if not entry and seen <= tonumber(floor) and seen < tonumber(rev) then
      return 0
    end
    local there = entry and string.match(entry[1], '-(%d+)$') or seen == tonumber(rev) and nonce
    if there == args[3] then
      return 0
    end
  end
  redis.call('HSET', key .. 'v', '', args[4] .. string.sub(head, #epoch + 1))
  redis.call('SPUBLISH', key .. 'c', '* ' .. args[4] .. ' ' .. rev .. ' ' .. nonce .. ' ' .. decl .. ' ')
  return 1
end

redis.register_function('dspex_1_create', create)
redis.register_function('dspex_1_renew', renew)
redis.register_function{function_name = 'dspex_1_delete', callback = delete, flags = {'allow-oom'}}
redis.register_function{function_name = 'dspex_1_since', callback = since, flags = {'no-writes'}}
redis.register_function{function_name = 'dspex_1_log', callback = log, flags = {'no-writes'}}
redis.register_function{function_name = 'dspex_1_tagged', callback = tagged, flags = {'no-writes'}}
