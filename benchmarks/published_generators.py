"""Published numbers for VAEs and what can be made of them, on full MNIST and Fashion-MNIST.

`python -m benchmarks.published_generators [--quick] [--rows vae_bound ...]`; the files are looked for in the folder named
by LAYERWISE_DATA_MIRROR before anything is downloaded. Test images are only scored. Rows that are not asked for keep their
last result, and a killed training goes on.

rows: vae_bound (784-200-200-50, k=5000; Burda et al. 2016 have -86.76 from a VAE and -84.78 from 50 importance samples).
"""

import argparse
import sys
from collections.abc import Callable

from benchmarks.published.digits import Digits, Effort, load_digits
from benchmarks.published.vae_bound import measure_bound
from benchmarks.record import Row, record
from pipeline.device import resolve_accelerator, set_threads

THREADS = 2

ROWS: dict[str, Callable[[Digits, Effort], list[Row]]] = {
    "vae_bound": measure_bound,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short training and scoring, without bars")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    effort, digits = Effort(arguments.quick, resolve_accelerator("auto")), load_digits()
    rows = [row for name in arguments.rows for row in ROWS[name](digits, effort)]
    return record("published_generators", rows, keep_others=not arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
