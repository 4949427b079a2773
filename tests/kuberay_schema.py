"""Makes tests/data/kuberay-schema.json from KubeRay's resource definitions: `python -m tests.kuberay_schema FOLDER`.

FOLDER is helm-chart/kuberay-operator/crds of github.com/ray-project/kuberay. Descriptions go, equal subtrees become one
definition, and unknown fields become errors, as they are for `kubectl apply`.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

FILE = Path(__file__).parent / "data/kuberay-schema.json"
KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
VERSION = "KubeRay v1.6.2, Apache-2.0, https://github.com/ray-project/kuberay"
SMALLEST = 120
"""Characters of a subtree that is worth a definition."""


def make_schema(folder: Path) -> dict[str, Any]:
    """One JSON schema per kind, with definitions they share."""
    plain = {kind: strict(read_spec(folder / file)) for kind, file in KINDS.items()}
    counts: Counter[str] = Counter()
    for schema in plain.values():
        count(schema, counts)
    shared = {text: f"d{number}" for number, text in enumerate(t for t, n in counts.items() if n > 1)}
    definitions = {name: replaced(json.loads(text), shared, inside=text) for text, name in shared.items()}
    kinds = {kind: replaced(schema, shared) for kind, schema in plain.items()}
    return {"$comment": VERSION, "$defs": definitions, "kinds": kinds}


def read_spec(file: Path) -> dict[str, Any]:
    (version,) = (v for v in yaml.safe_load(file.read_text())["spec"]["versions"] if v["name"] == "v1")
    spec: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def strict(node: Any) -> Any:
    """Without descriptions and Kubernetes' extensions; fields that are not listed are errors."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "properties" in node and isinstance(node["properties"], dict) and "type" in node:
        fields = {name: strict(field) for name, field in node["properties"].items()}
        rest = {key: strict(value) for key, value in node.items() if key != "properties" and kept(key, value)}
        return {**rest, "properties": fields, "additionalProperties": "x-kubernetes-preserve-unknown-fields" in node}
    return {key: strict(value) for key, value in node.items() if kept(key, value)}


def kept(key: str, value: Any) -> bool:
    return not key.startswith("x-kubernetes") and not (key == "description" and isinstance(value, str))


def count(node: Any, counts: Counter[str]) -> None:
    if isinstance(node, dict):
        text = json.dumps(node, sort_keys=True)
        if "type" in node and len(text) >= SMALLEST:
            counts[text] += 1
            if counts[text] > 1:
                return
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        count(child, counts)


def replaced(node: Any, shared: dict[str, str], inside: str = "") -> Any:
    """The tree with references for shared subtrees; inside: the one that is being defined."""
    if isinstance(node, list):
        return [replaced(item, shared) for item in node]
    if not isinstance(node, dict):
        return node
    text = json.dumps(node, sort_keys=True)
    if text in shared and text != inside:
        return {"$ref": f"#/$defs/{shared[text]}"}
    return {key: replaced(value, shared) for key, value in node.items()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(make_schema(Path(sys.argv[1])), separators=(",", ":"), sort_keys=True) + "\n")
