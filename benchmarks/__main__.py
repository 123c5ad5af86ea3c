"""``python -m benchmarks``: every benchmark on this machine, then RESULTS.md from all saved tables."""

import sys

from . import lib, noise_tracking, noise_warp

if __name__ == "__main__":
    for benchmark in (noise_warp, noise_tracking):
        benchmark.main()
    print(lib.write_report(), file=sys.stderr)
