-- Releases the lock of a builder. KEYS: lock. ARGV: the token that took it.
-- Returns 1, or 0 if the lock has expired, and may be another builder's now.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
