-- wrk: usage events with ids that never repeat, over 1,000 organisations; counts answers that are not 2xx.
local thread_count = 0
function setup(thread)
  thread:set("number", thread_count)
  thread_count = thread_count + 1
end

local sent, token, run = 0, os.getenv("BENCH_TOKEN"), os.getenv("BENCH_RUN")
bad = 0

function request()
  sent = sent + 1
  local body = string.format(
    '{"org_id":"org-%d","feature":"api_requests","quantity":1,"event_id":"%s-%d-%d","metadata":{"chain":"ethereum"}}',
    sent % 1000, run, number, sent)
  return wrk.format("POST", "/usage/track",
    {["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token}, body)
end

function response(status)
  if status < 200 or status > 299 then bad = bad + 1 end
end

local threads = {}
local base_setup = setup
function setup(thread)
  base_setup(thread)
  threads[#threads + 1] = thread
end

function done(summary, latency)
  local failed = 0
  for _, thread in ipairs(threads) do failed = failed + thread:get("bad") end
  local errors = summary.errors
  io.write(string.format('{"requests":%d,"bad":%d,"errors":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, failed, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
