-- wrk: arrays of usage events with ids that never repeat, each array over so many organisations of 1,000.
local thread_count = 0
local threads = {}
function setup(thread)
  thread:set("number", thread_count)
  thread_count = thread_count + 1
  threads[#threads + 1] = thread
end

local token, run = os.getenv("BENCH_TOKEN"), os.getenv("BENCH_RUN")
local size, orgs = tonumber(os.getenv("BENCH_SIZE")), tonumber(os.getenv("BENCH_ORGS"))
local headers = {["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. token}
local format, concat = string.format, table.concat
local sent, first_org = 0, 0
bad = 0

function request()
  local events = {}
  for i = 1, size do
    sent = sent + 1
    events[i] = format(
      '{"org_id":"org-%d","feature":"api_requests","quantity":1,"event_id":"%s-%d-%d","metadata":{"chain":"ethereum"}}',
      (first_org + i % orgs) % 1000, run, number, sent)
  end
  first_org = first_org + orgs
  return wrk.format("POST", "/v1/events", headers, "[" .. concat(events, ",") .. "]")
end

-- 200 says that every event was recorded (or seen before, which ids that never repeat are not).
function response(status)
  if status ~= 200 then bad = bad + 1 end
end

function done(summary, latency)
  local failed = 0
  for _, thread in ipairs(threads) do failed = failed + thread:get("bad") end
  local errors = summary.errors
  io.write(format('{"requests":%d,"bad":%d,"errors":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, failed, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
