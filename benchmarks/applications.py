"""What the applications reach on full data, each beside its baselines.

`python -m benchmarks.applications [--quick] [--rows anomaly_mnist denoise ...]`; files are looked for in the folder
named by LAYERWISE_DATA_MIRROR before anything is downloaded. Test data are only scored: whatever was chosen was chosen
on training data. Rows that are not asked for keep their last result.

rows: anomaly_mnist, anomaly_fashion (mean AUROC, each class normal in turn: a convolutional RBM and baselines),
anomaly_all (every detector on MNIST), anomaly_tables (AUROC on the ADBench sets in that folder), denoise,
denoise_autoencoder (PSNR on MNIST), represent (clusters and neighbours of a VAE's codes of MNIST), recommend (MovieLens
latest-small), recommend_time (its latest ratings held out), recommend_100k and recommend_1m (published rows, where the
user has the files).
"""

import argparse
import sys
from collections.abc import Callable

from benchmarks.published.digits import Effort
from benchmarks.record import Row, record
from benchmarks.uses.anomaly import measure_all, measure_fashion, measure_mnist
from benchmarks.uses.anomaly_tables import measure_tables
from benchmarks.uses.denoise import measure_autoencoder, measure_denoise
from benchmarks.uses.recommend import measure_1m, measure_100k, measure_latest, measure_time
from benchmarks.uses.represent import measure_represent
from pipeline.device import resolve_accelerator, set_threads

THREADS = 2

ROWS: dict[str, Callable[[Effort], list[Row]]] = {
    "anomaly_mnist": measure_mnist,
    "anomaly_fashion": measure_fashion,
    "anomaly_all": measure_all,
    "anomaly_tables": measure_tables,
    "denoise": measure_denoise,
    "denoise_autoencoder": measure_autoencoder,
    "represent": measure_represent,
    "recommend": measure_latest,
    "recommend_time": measure_time,
    "recommend_100k": measure_100k,
    "recommend_1m": measure_1m,
}
ON_REQUEST = ("anomaly_all", "recommend_time", "recommend_100k", "recommend_1m")
"""Slow, or of files that one must fetch by hand."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short training, without bars")
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=[name for name in ROWS if name not in ON_REQUEST]
    )
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    effort = Effort(arguments.quick, resolve_accelerator("auto"))
    rows = [row for name in arguments.rows for row in ROWS[name](effort)]
    return record("applications", rows, keep_others=not arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
