-- Marks the builder's map as complete. KEYS: states, meta. ARGV: the builder's token.
-- Returns 1, or 0 if another builder has taken over.
if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] or redis.call('GETRANGE', KEYS[1], 0, 0) ~= 'B' then
  return 0
end
redis.call('SETRANGE', KEYS[1], 0, 'C')
return 1
