"""What the applications must reach on full data, each beside its baseline.

`python -m benchmarks.applications [--quick] [--rows denoise represent ...]`; the files are looked for in the folder
named by LAYERWISE_DATA_MIRROR before anything is downloaded. Test images are only scored: whatever was chosen was
chosen on training images. Rows that are not asked for keep their last result.
"""

import argparse
import sys
from collections.abc import Callable

from benchmarks.published.digits import Effort
from benchmarks.record import Row, record
from benchmarks.uses.denoise import measure_autoencoder, measure_denoise
from benchmarks.uses.represent import measure_represent
from pipeline.device import resolve_accelerator, set_threads

THREADS = 2

ROWS: dict[str, Callable[[Effort], list[Row]]] = {
    "denoise": measure_denoise,
    "denoise_autoencoder": measure_autoencoder,
    "represent": measure_represent,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short training, without bars")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    effort = Effort(arguments.quick, resolve_accelerator("auto"))
    rows = [row for name in arguments.rows for row in ROWS[name](effort)]
    return record("applications", rows, keep_others=not arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
