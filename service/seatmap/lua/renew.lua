-- Records how fresh all complete maps are: everything that was committed at a moment is in them.
-- KEYS: watermark. ARGV: epoch; a time by Redis's clock in ms, not later than the moment; the moment by PostgreSQL's clock
-- in microseconds; the time by Redis's clock in ms when the watermark expires.
-- Returns 1, or 0 for a writer that is too late, or behind another writer, or wrote to an earlier run of Redis.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not string.find(ARGV[1], run, 1, true) then
  return 0
end
local time = redis.call('TIME')
if tonumber(ARGV[4]) <= time[1] * 1000 + math.floor(time[2] / 1000) then
  return 0
end
-- A damaged watermark, or one without an expiry, is not ours. It is overwritten.
local known = redis.pcall('GET', KEYS[1])
local as_of = type(known) == 'string' and tonumber(string.match(known, '|(%d+)$')) or -1
if as_of > tonumber(ARGV[3]) and redis.call('PTTL', KEYS[1]) > 0 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. ARGV[2] .. '|' .. ARGV[3], 'PXAT', ARGV[4])
return 1
