"""``python -m benchmarks [NAME ...]``: the named benchmarks (all, if none is) on this machine, then RESULTS.md from all
saved tables."""

import sys

from . import blobs, cut_and_drag, imagine360, lib, manga_ninja, noise_tracking, noise_warp, panorama, relight, story

BENCHMARKS = {
    "noise_warp": noise_warp,
    "noise_tracking": noise_tracking,
    "cut_and_drag": cut_and_drag,
    "story": story,
    "relight": relight,
    "manga_ninja": manga_ninja,
    "blobs": blobs,
    "panorama": panorama,
    "imagine360": imagine360,
}

if __name__ == "__main__":
    for name in [name for name in sys.argv[1:] if name in BENCHMARKS] or BENCHMARKS:
        BENCHMARKS[name].main()
    print(lib.write_report(), file=sys.stderr)
