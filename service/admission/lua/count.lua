-- Adds requests to the counts of several keys, and returns each key's counts.
-- KEYS: for each count the key of its window and of the window before.
-- ARGV: seconds until a window is forgotten; the weight of the window before, or -1 where no further request asks to be
-- admitted; then for each count the requests that were admitted already, and the limit.
local answers, weight = {}, tonumber(ARGV[2])
for n = 1, #KEYS / 2 do
  local window = KEYS[2 * n - 1]
  local added, limit = tonumber(ARGV[2 * n + 1]), tonumber(ARGV[2 * n + 2])
  local counted = tonumber(redis.call('get', window) or 0) + added
  local before = tonumber(redis.call('get', KEYS[2 * n]) or 0)
  local admitted = 0
  if weight >= 0 and counted + math.floor(before * weight) < limit then
    admitted = 1
  end
  if added + admitted > 0 then
    counted = redis.call('incrby', window, added + admitted)
    redis.call('expire', window, ARGV[1])
  end
  answers[n] = {counted, before, admitted}
end
return answers
