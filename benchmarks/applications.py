"""What the applications reach on full data, each beside its baselines.

`python -m benchmarks.applications [--quick] [--rows anomaly_mnist denoise ...]`; files are looked for in the folder
named by LAYERWISE_DATA_MIRROR before anything is downloaded. Test data are only scored: whatever was chosen was chosen
on training data. Rows that are not asked for keep their last result.

rows: anomaly_mnist, anomaly_fashion (mean AUROC, each class normal in turn: a convolutional RBM and baselines),
anomaly_all (every detector on MNIST), anomaly_tables (AUROC on the ADBench sets in that folder), denoise,
denoise_autoencoder (PSNR on MNIST), represent (clusters and neighbours of a VAE's codes of MNIST).
"""

import argparse
import sys
from collections.abc import Callable

from benchmarks.published.digits import Effort
from benchmarks.record import Row, record
from benchmarks.uses.anomaly import measure_all, measure_fashion, measure_mnist
from benchmarks.uses.anomaly_tables import measure_tables
from benchmarks.uses.denoise import measure_autoencoder, measure_denoise
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
}
SLOW = ("anomaly_all",)
"""Run only when asked for."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short training, without bars")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=[name for name in ROWS if name not in SLOW])
    parser.add_argument("--threads", type=int, default=THREADS)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    effort = Effort(arguments.quick, resolve_accelerator("auto"))
    rows = [row for name in arguments.rows for row in ROWS[name](effort)]
    return record("applications", rows, keep_others=not arguments.quick)


if __name__ == "__main__":
    sys.exit(main())
