-- Makes a map whose seats are all available at version 0, marked as building. From here on changes are applied to it.
-- KEYS: states, versions, meta. ARGV: number of seats, the builder's token, milliseconds to live, when the showing is over
-- in ms: then the map goes before its time, but not within a minute, for who still looks at it.
-- Returns 1, or 0 where a complete map is there already.
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
