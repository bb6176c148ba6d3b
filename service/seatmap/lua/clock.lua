-- Reads what the projector needs before it reads the log.
-- KEYS: the operator's counter, the place. Returns Redis's time in seconds and microseconds, its run, and both values.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local time = redis.call('TIME')
-- A counter of another type must be an error, so GET; a place of another type counts as missing, so MGET.
return { tonumber(time[1]), tonumber(time[2]), run, redis.call('GET', KEYS[1]), redis.call('MGET', KEYS[2])[1] }
