"""What each arm of a study does, in words."""

from pipeline.config.classifier import Study

RELU = "ReLU, max-pooling"
PROBABILISTIC = "sigmoid, probabilistic max-pooling"
RANDOM = "random"
REAL = "the labelled images"

TRANSFER = (
    "CDBN pretraining hands over the filters and biases of every layer, the pooling geometry, and the mean and spread "
    "of the top features; the classification layer alone is new. Before its first update the network computes exactly "
    "the Deep Belief Network's mean-field activations. The control has the same network with random filters: the "
    "difference between the two is what pretraining did, and nothing else."
)


def describe_arm(arm: str, study: Study) -> dict[str, str]:
    """network, start and images of an arm."""
    network = PROBABILISTIC if arm in ("cdbn", "scratch_probabilistic") else RELU
    start = "filters and biases of the CDBN" if arm == "cdbn" else RANDOM
    images = REAL
    if arm == "classical":
        images = f"{REAL}, shifted, turned, scaled and bent at random"
    if arm in ("vae", "gan"):
        images = f"{REAL}; {100 * study.synthetic_share:g} % of each batch is synthetic, from the {arm.upper()}"
    return {"network": network, "start": start, "images": images}
