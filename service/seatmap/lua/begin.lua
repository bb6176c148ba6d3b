-- Creates a map that is marked as building, with all seats available at version 0. Changes are applied to it from now on.
-- KEYS: states, versions, meta. ARGV: number of seats, the builder's token, lifetime in ms, end of the showing in ms.
-- The map expires at the end of the showing if that is earlier, but not within the next minute, for its readers.
-- Returns 1, or 0 if a complete map exists.
if redis.call('GETRANGE', KEYS[1], 0, 0) == 'C' then
  return 0
end
local time = redis.call('TIME')
local left = math.max(tonumber(ARGV[4]) - time[1] * 1000 - math.floor(time[2] / 1000), 60000)
local ttl = math.min(tonumber(ARGV[3]), left)
redis.call('SET', KEYS[1], 'B' .. string.rep('A', ARGV[1]), 'PX', ttl)
redis.call('SET', KEYS[2], string.rep('\0', 4 * ARGV[1]), 'PX', ttl)
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'token', ARGV[2], 'held', 0, 'sold', 0)
redis.call('PEXPIRE', KEYS[3], ttl)
return 1
