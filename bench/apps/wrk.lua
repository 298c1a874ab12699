-- Says at the end, in one line of JSON, what wrk measured; times are in microseconds.
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "duration": %d, "p50": %.0f, "p99": %.0f, "errors": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
