"""Published numbers for RBMs and DBNs on full MNIST, reached with the pipeline's own training.

`python -m benchmarks.published_rbm [--quick] [--rows rbm dbn ...]`; the files are looked for in the folder named by
LAYERWISE_DATA_MIRROR before anything is downloaded. Test images are only scored: whatever was chosen was chosen on
5,000 of the training images, which no model here learns from. Rows that are not asked for keep their last result.

rows: rbm (784-500, PCD, 20 epochs; about -91 is right), rbm_best (long PCD-5; Salakhutdinov & Murray 2008 have -86.34
from CD-25), dbn (500-2000, the variational bound; -84.55 there), features (logistic regression on 500 hidden units),
codes (squared error of 30-d codes, unrolled autoencoder; 3.00 in Hinton & Salakhutdinov 2006), dropout (error of a DBN
fine-tuned with dropout, permutation-invariant; 0.92 % in Srivastava et al. 2014),
cdbn_100, cdbn_100_augmented, cdbn_1000 (a CNN that starts from a convolutional DBN, with so many labels).
"""

import argparse
import sys
from collections.abc import Callable

from benchmarks.published.codes import measure_codes
from benchmarks.published.digits import Digits, Effort, load_digits
from benchmarks.published.features import measure_features
from benchmarks.published.few_labels import measure_100, measure_100_augmented, measure_1000
from benchmarks.published.likelihoods import measure_best_rbm, measure_dbn, measure_rbm
from benchmarks.published.permutation_invariant import measure_dropout
from benchmarks.record import Row, record
from pipeline.device import resolve_accelerator, set_threads

THREADS = 2

ROWS: dict[str, Callable[[Digits, Effort], list[Row]]] = {
    "rbm": measure_rbm,
    "rbm_best": measure_best_rbm,
    "dbn": measure_dbn,
    "features": measure_features,
    "codes": measure_codes,
    "dropout": measure_dropout,
    "cdbn_100": measure_100,
    "cdbn_100_augmented": measure_100_augmented,
    "cdbn_1000": measure_1000,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short training and annealing, without bars")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["rbm", "features"])
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    effort, digits = Effort(arguments.quick, resolve_accelerator("auto")), load_digits()
    rows = [row for name in arguments.rows for row in ROWS[name](digits, effort)]
    return record("published_rbm", rows, keep_others=not arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
