-- Changes seats, each only if the version is newer, so that a late writer can't undo a later change.
-- KEYS: states, versions, meta. ARGV: the builder's token or '', then position, state and version of each seat.
-- Returns the number of seats that changed; -1 if there is no map, or the token is no longer the builder's.
local size = redis.call('STRLEN', KEYS[1])
if size == 0 then
  return -1
end
-- Redis may have evicted one of the three keys. Without all of them it is unknown which version is newer.
if redis.call('STRLEN', KEYS[2]) ~= 4 * (size - 1) or redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  return -1
end
if ARGV[1] ~= '' and redis.call('HGET', KEYS[3], 'token') ~= ARGV[1] then
  return -1
end

local counts = { A = 0, H = 0, S = 0 }
local changed = 0
for i = 2, #ARGV, 3 do
  local position, state, version = tonumber(ARGV[i]), ARGV[i + 1], tonumber(ARGV[i + 2])
  local known = redis.call('GETRANGE', KEYS[2], position * 4, position * 4 + 3)
  if #known == 4 and version > struct.unpack('>I4', known) then
    local before = redis.call('GETRANGE', KEYS[1], position + 1, position + 1)
    counts[before] = counts[before] - 1
    counts[state] = counts[state] + 1
    redis.call('SETRANGE', KEYS[1], position + 1, state)
    redis.call('SETRANGE', KEYS[2], position * 4, struct.pack('>I4', version))
    changed = changed + 1
  end
end
if changed > 0 then
  redis.call('HINCRBY', KEYS[3], 'held', counts.H)
  redis.call('HINCRBY', KEYS[3], 'sold', counts.S)
end
return changed
