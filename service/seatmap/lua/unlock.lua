-- Lets somebody else build the map. KEYS: lock. ARGV: the token that took it.
-- Returns 1, or 0 where the lock has gone by itself, and may be somebody else's by now.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
