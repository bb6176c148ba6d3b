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
-- What is no mark, or never ends as none of ours does, is somebody else's: it is overwritten, whatever it says.
local known = redis.pcall('GET', KEYS[1])
local as_of = type(known) == 'string' and tonumber(string.match(known, '|(%d+)$')) or -1
if as_of > tonumber(ARGV[3]) and redis.call('PTTL', KEYS[1]) > 0 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. ARGV[2] .. '|' .. ARGV[3], 'PXAT', ARGV[4])
return 1
