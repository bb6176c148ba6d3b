-- Says how fresh all complete maps are: everything that was committed at a moment is in them.
-- KEYS: watermark. ARGV: epoch, a moment not later than that one by Redis's clock in ms, that moment in microseconds by
-- PostgreSQL's, when it is too old by Redis's in ms.
-- Returns 1, or 0 from a writer who comes too late, or behind another one, or wrote to a Redis that is not there any more.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not string.find(ARGV[1], run, 1, true) then
  return 0
end
local time = redis.call('TIME')
if tonumber(ARGV[4]) <= time[1] * 1000 + math.floor(time[2] / 1000) then
  return 0
end
local known = redis.call('GET', KEYS[1])
if known and tonumber(string.match(known, '|(%d+)$')) > tonumber(ARGV[3]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. ARGV[2] .. '|' .. ARGV[3], 'PXAT', ARGV[4])
return 1
