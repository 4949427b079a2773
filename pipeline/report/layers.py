"""What the report says of one layer of the DBN."""

from pipeline import paths
from pipeline.artifacts import read_json, read_table
from pipeline.config.monitor import Monitor
from pipeline.config.pretrain import ConvLayer, Layer
from pipeline.report.content import LayerFacts, Likelihood
from pipeline.report.files import Files


def read_layer(files: Files, name: str, layer: Layer, monitor: Monitor) -> LayerFacts:
    """What the outs of stage pretrain@<name> say; what is missing is remembered in `files`."""
    folder = paths.plots(f"pretrain@{name}")
    rows = read_table(files.root / folder / "free_energy.csv") if files.has(folder / "free_energy.csv") else []
    metrics = paths.metrics(f"pretrain@{name}")
    told = read_json(files.root / metrics) if files.has(metrics) else {}
    kind = "convolution filters" if isinstance(layer, ConvLayer) else "features"
    return LayerFacts(
        name=name,
        description=_describe_layer(layer),
        filters=files.picture(folder / "filters.png", f"The {kind} that layer {name} learned."),
        reconstructions=files.picture(
            folder / "reconstructions.png",
            f"Validation images above what the network up to layer {name} makes of them.",
        ),
        chains=files.picture(
            folder / "chains.png",
            f"Gibbs chains of layer {name}, one in each row, from validation images and from noise.",
        ),
        chain_rounds=list(monitor.chain_rounds),
        curves={
            key: [float(row[key]) for row in rows] for key in (rows[0] if rows else ()) if all(row[key] for row in rows)
        },
        likelihoods=[
            Likelihood(int(row["step"]), *(float(row[f"log_likelihood{end}"]) for end in ("", "_low", "_high")))
            for row in rows
            if row.get("log_likelihood")
        ],
        refused=str(told.get("log_likelihood_refused", "")),
    )


def _describe_layer(layer: Layer) -> str:
    if isinstance(layer, ConvLayer):
        return (
            f"convolutional, {layer.num_filters} filters of {layer.kernel_size} by {layer.kernel_size} pixels, "
            f"probabilistic max-pooling by {layer.pool_size}"
        )
    return f"dense, {layer.num_hidden} hidden units"
