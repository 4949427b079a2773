"""Published numbers for VAEs and what can be made of them, on full MNIST and Fashion-MNIST.

`python -m benchmarks.published_generators [--quick] [--rows vae_bound ...]`; the files are looked for in the folder
named by LAYERWISE_DATA_MIRROR before anything is downloaded. Test images are only scored. Rows that are not asked for
keep their last result, and a killed training goes on.

rows: vae_bound (784-200-200-50, k=5000; Burda et al. 2016 have -86.76 from a VAE, -84.78 trained with 50 samples),
semi_supervised (100 labels, 10 draws; M1+M2 has 3.33 % in Kingma et al. 2014), accuracy_1nn and accuracy_cnn
(classifiers that learn from samples of a conditional VAE).
"""

import argparse
import sys
from collections.abc import Callable

from benchmarks.published.accuracy_scores import measure_cnn, measure_neighbours
from benchmarks.published.digits import Digits, Effort, load_digits
from benchmarks.published.latent_labels import measure_semi_supervised
from benchmarks.published.vae_bound import measure_bound
from benchmarks.record import Row, record
from pipeline.device import resolve_accelerator, set_threads

THREADS = 2

ROWS: dict[str, Callable[[Digits, Effort], list[Row]]] = {
    "vae_bound": measure_bound,
    "semi_supervised": measure_semi_supervised,
    "accuracy_1nn": measure_neighbours,
    "accuracy_cnn": measure_cnn,
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
