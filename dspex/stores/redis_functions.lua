#!lua name=dspex_1

-- All that happens to the sessions of a Redis store happens in these functions, each of which is one atomic step.
--
-- A session is a few keys with one hash tag, so that they are in one slot of a cluster. Functions are given
-- their common beginning `dx:{id}:` as the one key, and make the others of it:
--
--   v       hash: name -> record, as "version rev time tail"; the tail is the client's. The empty name has the
--           head: "epoch rev nonce decl floor logn logb loglim ops gen opx claim created", where nonce is that
--           of the newest commit, decl says how many variables there are, floor after which revision the log
--           has all, logn, logb and loglim the changes in the log, their bytes and their limit; for ops, gen
--           and opx see `remember`; claim is 1 while there are claims, and 2 more while nobody may commit
--   d       hash: name -> "index declaration"
--   l       stream: one entry a commit, its id is rev-nonce; fields: name -> record, then '-' -> record before
--   o0 o1   hashes: op -> "rev time nonce version…"
--   c       hash: name -> claims, as MessagePack
--   t       hash: label -> "rev decl"; t:label is a copy of v as it was then
--   x       the epoch of a session that was deleted, for a day; '?' if its head was none
--   h       who holds the session: a word that only that client knows; for a minute
--   m       where a session has moved: "holder id url"
--   r:…:    the same keys of a session that is being restored, under the word of who does it
--   c       also names the channel
--
-- The nonce is a random number of the client. An id that was used again for another commit, because a server
-- that takes over did not have the first one, has another nonce: nobody can mistake one history for the other.

local NAMES, TAGS, OPS, NESTING = 1000, 256, 10000, 16
local HISTORY, PER_NAME, BYTES = 1024, 16, 8 * 1024 * 1024
local OP_SECONDS, TOMB_SECONDS = 600, 86400
local PAYLOAD = 4096

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000, time[1] .. '.' .. string.format('%06d', time[2])
end

local function netstring(text)
  return #text .. ':' .. text
end

local function related(token, claimed)
  return token == claimed
    or string.sub(token, 1, #claimed + 1) == claimed .. '/'
    or string.sub(claimed, 1, #token + 1) == token .. '/'
end

-- The claims on a name that are not over, from the outermost to the innermost.
local function chain_of(key, name, time)
  local packed = redis.call('HGET', key .. 'c', name)
  local chain = {}
  if packed then
    for _, held in ipairs(cmsgpack.unpack(packed)) do
      if tonumber(held[3]) > time then
        chain[#chain + 1] = held
      end
    end
  end
  return chain
end

local function keep_chain(key, name, chain)
  if #chain == 0 then
    redis.call('HDEL', key .. 'c', name)
  else
    redis.call('HSET', key .. 'c', name, cmsgpack.pack(chain))
  end
end

local function claimed_by_other(key, name, token, time)
  local chain = chain_of(key, name, time)
  local last = chain[#chain]
  if last and not (token ~= '' and related(token, last[1])) then
    return {'CLAIMED', name, last[2], string.format('%.3f', tonumber(last[3]) - time)}
  end
end

-- Forget what is too much of the log: all but the newest changes, and the newest of each name.
local function shorten(key, floor)
  local entries = redis.call('XRANGE', key .. 'l', '-', '+')
  local often, kept, gone = {}, {}, {}
  local count, bytes = 0, 0
  for at = #entries, 1, -1 do
    local fields, size, scarce = entries[at][2], 0, count < HISTORY
    for i = 1, #fields, 4 do
      size = size + #fields[i + 1] + #fields[i + 3]
      scarce = scarce or (often[fields[i]] or 0) < PER_NAME
    end
    if scarce then
      for i = 1, #fields, 4 do
        often[fields[i]] = (often[fields[i]] or 0) + 1
        count = count + 1
      end
      bytes = bytes + size
      kept[#kept + 1] = {entries[at][1], #fields / 4, size}
    else
      gone[#gone + 1] = entries[at][1]
    end
  end
  while bytes > BYTES / 2 and #kept > 1 do
    local oldest = table.remove(kept)
    count = count - oldest[2]
    bytes = bytes - oldest[3]
    gone[#gone + 1] = oldest[1]
  end
  for from = 1, #gone, 500 do
    redis.call('XDEL', key .. 'l', unpack(gone, from, math.min(from + 499, #gone)))
  end
  for _, id in ipairs(gone) do
    floor = math.max(floor, tonumber(string.match(id, '^(%d+)')))
  end
  return floor, count, bytes, math.max(3 * HISTORY, count + HISTORY)
end

local HEAD = '^(%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d) (%d+) (%d) (%S+)$'

-- Keep how a commit was answered, in one of two hashes, of which the older is dropped when one is full.
local function remember(key, ops, gen, expires, op, answer, time)
  ops = ops + 1
  if ops > OPS then
    gen, ops = 1 - gen, 1
    redis.call('DEL', key .. 'o' .. gen)
  end
  redis.call('HSET', key .. 'o' .. gen, op, answer)
  if time - expires > OP_SECONDS / 10 or ops == 1 then
    expires = math.floor(time)
    redis.call('EXPIRE', key .. 'o' .. gen, OP_SECONDS + OP_SECONDS / 5)
    redis.call('EXPIRE', key .. 'o' .. (1 - gen), OP_SECONDS + OP_SECONDS / 5)
  end
  return ops, gen, expires
end

local function done(key, gen, op)
  return redis.call('HGET', key .. 'o' .. gen, op) or redis.call('HGET', key .. 'o' .. (1 - gen), op)
end

local function head_of(key)
  local head = redis.call('HGET', key .. 'v', '')
  if head then
    return string.match(head, HEAD)
  end
end

local function broken(key)
  return redis.call('HEXISTS', key .. 'v', '') == 1
end

-- There is no session: the epoch of one that was deleted, and where it went if it has moved. Or its head is none.
local function gone(key)
  if broken(key) then
    return {'BROKEN'}
  end
  return {'GONE', redis.call('GET', key .. 'x') or '', redis.call('GET', key .. 'm') or ''}
end

-- Whether nobody may commit, by the `claim` of the head.
local function on_hold(key, claim)
  return tonumber(claim) >= 2 and redis.call('EXISTS', key .. 'h') == 1
end

local function wipe(key)
  for _, label in ipairs(redis.call('HKEYS', key .. 't')) do
    redis.call('DEL', key .. 't:' .. label)
  end
  for _, part in ipairs({'v', 'd', 'l', 'o0', 'o1', 'c', 't', 'h'}) do
    redis.call('DEL', key .. part)
  end
end

-- The commit of one write and nothing else, which is what most are. What is said of `commit` holds here.
-- 1 epoch, 2 applied rev, 3 its nonce, 4 op, 5 '1' if the op may have been done, 6 nonce, 7 origin, 8 name,
-- 9 expected version, 10 tail.
local function set(keys, args)
  local key, name = keys[1], args[8]
  local values = key .. 'v'
  local found = redis.call('HMGET', values, '', name)
  if not found[1] then
    return gone(key)
  end
  local epoch, rev, nonce, decl, floor, logn, logb, loglim, ops, gen, opx, claim, created =
    string.match(found[1], HEAD)
  if not epoch then
    return gone(key)
  end
  if args[5] == '1' then
    local answer = done(key, gen, args[4])
    if answer then
      return answer
    end
  end
  rev = tonumber(rev)
  local applied = tonumber(args[2])
  if args[1] ~= epoch or applied > rev or (applied == rev and args[3] ~= nonce) then
    return {'FORKED'}
  end
  local clock = redis.call('TIME')
  local time = tonumber(clock[1])
  if claim ~= '0' then
    if on_hold(key, claim) then
      return {'MOVING'}
    end
    local refused = claimed_by_other(key, name, '', time + tonumber(clock[2]) / 1000000)
    if refused then
      return refused
    end
    claim = claim % 2
  end
  local before = found[2] or ''
  local version = tonumber(string.match(before, '^%d+') or 0)
  if args[9] ~= '' and tonumber(args[9]) ~= version then
    return {'VERSION', name, version, args[9]}
  end

  -- Nothing below is refused.
  nonce, rev, version = args[6], rev + 1, version + 1
  local stamped = ' ' .. rev .. ' ' .. clock[1] .. '.' .. string.format('%06d', clock[2]) .. ' '
  local record = version .. stamped .. args[10]
  redis.call('XADD', key .. 'l', rev .. '-' .. nonce, name, record, '-', before)
  logn, logb = logn + 1, logb + #record + #before
  if logn >= tonumber(loglim) or logb > BYTES then
    floor, logn, logb, loglim = shorten(key, tonumber(floor))
  end
  local answer = string.sub(stamped, 2) .. nonce .. ' ' .. version
  ops, gen, opx = remember(key, ops, gen, opx, args[4], answer, time)
  redis.call(
    'HSET', values, name, record, '', epoch .. ' ' .. rev .. ' ' .. nonce .. ' ' .. decl .. ' ' .. floor .. ' '
    .. logn .. ' ' .. logb .. ' ' .. loglim .. ' ' .. ops .. ' ' .. gen .. ' ' .. opx .. ' ' .. claim .. ' ' .. created
  )
  local hint = args[7] .. ' ' .. epoch .. ' ' .. rev .. ' ' .. nonce .. ' ' .. decl .. ' '
  if #record <= PAYLOAD then
    hint = hint .. #name .. ':' .. name .. #record .. ':' .. record
  end
  redis.call('SPUBLISH', key .. 'c', hint)
  return answer
end

-- 1 epoch, 2 applied rev, 3 its nonce, 4 op, 5 '1' if the op may have been done, 6 nonce, 7 origin, 8 token,
-- 9 known declarations, 10 how many declarations; then name and declaration of each;
-- then claim token, and if there is one owner, seconds, how many names, names; then release; then tag;
-- then how many writes; then name, expected version, tail of each; then name and expected version of what is given.
local function commit(keys, args)
  local key = keys[1]
  local epoch, rev, nonce, decl, floor, logn, logb, loglim, ops, gen, opx, claimed, created = head_of(key)
  if not epoch then
    return gone(key)
  end
  local op, token = args[4], args[8]
  if args[5] == '1' then
    local answer = done(key, gen, op)
    if answer then
      return answer
    end
  end
  local applied = tonumber(args[2])
  rev, decl, claimed = tonumber(rev), tonumber(decl), tonumber(claimed)
  if args[1] ~= epoch or applied > rev or (applied == rev and args[3] ~= nonce) then
    return {'FORKED'}
  end
  if on_hold(key, claimed) then
    return {'MOVING'}
  end
  claimed = claimed % 2
  local time, stamp = now()

  -- Everything that can be refused, before anything is written.
  local at = 10
  local declared = tonumber(args[at])
  local declarations = at + 1
  at = declarations + 2 * declared
  if declared > 0 then
    if tonumber(args[9]) ~= decl then
      return {'DECLARED'}
    end
    if decl + declared > NAMES then
      return {'NAMES', decl + declared}
    end
  end
  local claim = args[at]
  local owner, seconds, names, first
  at = at + 1
  if claim ~= '' then
    owner, seconds, names = args[at], tonumber(args[at + 1]), tonumber(args[at + 2])
    first = at + 3
    at = first + names
  end
  local release, tag = args[at], args[at + 1]
  local count = tonumber(args[at + 2])
  local writes = at + 3
  if claimed == 1 then
    for i = writes, writes + 3 * count - 1, 3 do
      local refused = claimed_by_other(key, args[i], token, time)
      if refused then
        return refused
      end
    end
    if claim ~= '' then
      for i = first, first + names - 1 do
        local refused = claimed_by_other(key, args[i], claim, time)
        if refused then
          return refused
        end
        local others = 0
        for _, held in ipairs(chain_of(key, args[i], time)) do
          others = others + (held[1] == claim and 0 or 1)
        end
        if others >= NESTING then
          return {'NESTED', args[i]}
        end
      end
    end
  end
  local given = writes + 3 * count
  local asked, versions = {}, {}
  for i = writes, given - 1, 3 do
    asked[#asked + 1] = args[i]
  end
  for i = given, #args, 2 do
    asked[#asked + 1] = args[i]
  end
  asked[#asked + 1] = ''  -- never empty, as HMGET wants one
  local before = redis.call('HMGET', key .. 'v', unpack(asked))
  for i = 1, count do
    local from = writes + 3 * (i - 1)
    before[i] = before[i] or ''
    local version = tonumber(string.match(before[i], '^%d+') or 0)
    if args[from + 1] ~= '' and tonumber(args[from + 1]) ~= version then
      return {'VERSION', args[from], version, args[from + 1]}
    end
    versions[i] = version + 1
  end
  for i = given, #args, 2 do
    local version = tonumber(string.match(before[count + (i - given) / 2 + 1] or '', '^%d+') or 0)
    if tonumber(args[i + 1]) ~= version then
      return {'VERSION', args[i], version, args[i + 1]}
    end
  end
  if tag ~= '' and redis.call('HEXISTS', key .. 't', tag) == 0 and redis.call('HLEN', key .. 't') >= TAGS then
    return {'TAGS'}
  end

  -- Nothing below is refused.
  for i = 0, declared - 1 do
    redis.call('HSET', key .. 'd', args[declarations + 2 * i], (decl + i) .. ' ' .. args[declarations + 2 * i + 1])
  end
  decl = decl + declared
  local told, records = {}, {}
  if count > 0 then
    rev, nonce = rev + 1, args[6]
    local stamped = ' ' .. rev .. ' ' .. stamp .. ' '
    local entry = {}
    for i = 1, count do
      local name = args[writes + 3 * (i - 1)]
      local record = versions[i] .. stamped .. args[writes + 3 * (i - 1) + 2]
      records[2 * i - 1], records[2 * i] = name, record
      entry[4 * i - 3], entry[4 * i - 2], entry[4 * i - 1], entry[4 * i] = name, record, '-', before[i]
      told[2 * i - 1], told[2 * i] = netstring(name), netstring(record)
      logb = logb + #record + #before[i]
    end
    logn = logn + count
    redis.call('XADD', key .. 'l', rev .. '-' .. nonce, unpack(entry))
    if logn >= tonumber(loglim) or logb > BYTES then
      floor, logn, logb, loglim = shorten(key, tonumber(floor))
    end
  end
  if release ~= '' and claimed == 1 then
    for _, name in ipairs(redis.call('HKEYS', key .. 'c')) do
      local chain = {}
      for _, held in ipairs(chain_of(key, name, time)) do
        if held[1] ~= release then
          chain[#chain + 1] = held
        end
      end
      keep_chain(key, name, chain)
    end
    claimed = redis.call('EXISTS', key .. 'c')
  end
  if claim ~= '' then
    for i = first, first + names - 1 do
      local chain = {}
      for _, held in ipairs(chain_of(key, args[i], time)) do
        if held[1] ~= claim then
          chain[#chain + 1] = held
        end
      end
      chain[#chain + 1] = {claim, owner, string.format('%.6f', time + seconds)}
      table.sort(chain, function(one, other) return #one[1] < #other[1] end)
      keep_chain(key, args[i], chain)
    end
    claimed = 1
  end
  local answer = rev .. ' ' .. stamp .. ' ' .. nonce
  if count > 0 then
    answer = answer .. ' ' .. table.concat(versions, ' ')
  end
  ops, gen, opx = remember(key, ops, gen, opx, op, answer, time)
  records[#records + 1] = ''
  records[#records + 1] = epoch .. ' ' .. rev .. ' ' .. nonce .. ' ' .. decl .. ' ' .. floor .. ' ' .. logn .. ' '
    .. logb .. ' ' .. loglim .. ' ' .. ops .. ' ' .. gen .. ' ' .. opx .. ' ' .. claimed .. ' ' .. created
  redis.call('HSET', key .. 'v', unpack(records))
  if tag ~= '' then
    redis.call('HSET', key .. 't', tag, rev .. ' ' .. decl)
    redis.call('COPY', key .. 'v', key .. 't:' .. tag, 'REPLACE')
  end
  if count > 0 or declared > 0 then
    local hint = args[7] .. ' ' .. epoch .. ' ' .. rev .. ' ' .. nonce .. ' ' .. decl .. ' '
    local payload = table.concat(told)
    redis.call('SPUBLISH', key .. 'c', #payload <= PAYLOAD and hint .. payload or hint)
  end
  return answer
end

redis.register_function('dspex_1_set', set)
redis.register_function('dspex_1_commit', commit)
