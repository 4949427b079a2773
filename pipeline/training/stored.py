"""A pretrained stack as files. Apart from the training, so that loading one does not import Lightning."""

from pathlib import Path

from pipeline.models.dbn import DBN
from pipeline.weights import load_weights, save_weights

DBN_FILE = "dbn.safetensors"


def save_dbn(folder: Path, dbn: DBN) -> None:
    """The whole stack: this layer and every one below it."""
    save_weights(folder / DBN_FILE, dbn.state_dict(), kind="dbn", config=dbn.to_config())


def load_dbn(folder: Path) -> DBN:
    """Raises ValueError as `load_weights` does."""
    state, config = load_weights(folder / DBN_FILE, kind="dbn")
    dbn = DBN.from_config(config)
    dbn.load_state_dict(state)
    return dbn.eval()
