"""All benchmarks, one after another."""

from benchmarks import demo, startup, throughput

for benchmark in (startup, throughput, demo):
    benchmark.main()
