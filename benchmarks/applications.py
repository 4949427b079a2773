"""What the applications reach on full data, beside their baselines.

`python -m benchmarks.applications [--quick] [--rows recommend ...]`; the files are looked for in the folder named by
LAYERWISE_DATA_MIRROR. Test data are only scored. Rows that are not asked for keep their last result.

rows: recommend (MovieLens latest-small), recommend_time (its latest ratings held out), recommend_100k and recommend_1m
(published rows, where the user has the files).
"""

import argparse
import sys
from collections.abc import Callable

from benchmarks.record import Row, record
from benchmarks.uses.recommend import measure_1m, measure_100k, measure_latest, measure_time
from pipeline.device import set_threads

THREADS = 2

ROWS: dict[str, Callable[[bool], list[Row]]] = {
    "recommend": measure_latest,
    "recommend_time": measure_time,
    "recommend_100k": measure_100k,
    "recommend_1m": measure_1m,
}
"""Each is told whether to be quick: little training, without bars."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little training, without bars")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["recommend"])
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    rows = [row for name in arguments.rows for row in ROWS[name](arguments.quick)]
    return record("applications", rows, keep_others=not arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
