import ast
from pathlib import Path

import pytest

from pipeline.config.load import SECTIONS, load_params
from pipeline.config.run import Run

PARAMS = Path(__file__).parent.parent / "params.yaml"


def test_the_shipped_params_are_valid_and_typed() -> None:
    params = load_params(PARAMS)
    assert isinstance(params.section(Run).seed, int)
    assert set(params.sections) == set(SECTIONS)
    assert [layer.kind for layer in params.layers.values()] == ["conv", "conv", "dense"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("vae.latnt_dim=3", r"unknown key of vae in .*'latnt_dim'; did you mean latent_dim\?"),
        ("vea.latent_dim=3", r"unknown section in .*'vea'; did you mean vae\?"),
        ("pretrain.layers.conv1.steps_=3", r"unknown key of pretrain.layers.conv1 .*did you mean steps\?"),
        ("vae.latent_dim=many", r"vae.latent_dim in .*'many'.*correct its type"),
        ("vae.latent_dim=1.5", r"vae.latent_dim in .*correct its type"),
        ("run.seed=true", r"run.seed must be a number, not true or false"),
        ("vae.beta=null", r"vae.beta in .*correct its type"),
        ("gan.betas=0.5", r"gan.betas in .*correct its type"),
        ("data.label_budgets=[50,b]", r"data.label_budgets\[1\] in .*'b'"),
        ("pretrain.layers.conv1.lr=-1", r"pretrain.layers.conv1.lr must be > 0, got -1.0: set it in params.yaml"),
        ("pretrain.layers.conv1.visible=gaussian_variance", r"conv1.visible must be one of bernoulli, gaussian, got"),
        (
            "pretrain.layers.dense.visible=softmax",
            r"dense.visible must be one of bernoulli, gaussian, gaussian_variance",
        ),
        (
            "pretrain.layers.dense.hidden=tanh",
            r"pretrain.layers.dense.hidden must be one of bernoulli, gaussian, relu, got 'tanh'",
        ),
        ("pretrain.layers.dense.num_temperatures=0", r"pretrain.layers.dense.num_temperatures must be >= 1, got 0"),
        (
            "pretrain.layers.dense.num_temperatures=5",
            r"dense.num_temperatures must be 1 without persistent: true, whose chains it tempers, got 5",
        ),
        ("monitor.ais_chains=49", r"monitor.ais_chains must be >= 50, got 49: set it in params.yaml"),
        ("monitor.chain_rounds=[1,5]", r"monitor.chain_rounds must be rising counts from 0 on, got \[1, 5\]"),
        ("run.workers=0", r"run.workers must be >= 1, got 0"),
        ("run.gpus_per_worker=1", r"run.gpus_per_worker 1.0 has no use on run.accelerator cpu"),
        ("run.address=nowhere", r"run.address must be null, auto or host:port, got 'nowhere'"),
        ("run.storage=''", r"run.storage is empty: give a folder that all nodes share, or an fsspec url"),
        ("run.precision=16", r"run.precision must be one of 32, bf16, got '16'"),
        ("data.label_budgets=[200,50]", r"data.label_budgets must be rising counts"),
        ("data.test_fraction=0.95", r"data.validation_fraction \+ data.test_fraction must be < 1"),
        ("data.image_size=30", r"data.image_size must be a multiple of 4 in 28..64"),
        ("tune.budget=51", r"tune.budget must be one of data.label_budgets \[50, 200, 1000\], got 51"),
        ("study.arms=[cdbn]", r"study.arms must be a list of scratch and at least one arm to compare it with"),
        ("study.arms=[scratch]", r"study.arms must be a list of scratch and at least one arm to compare it with"),
        ("augment.generators=[vae]", r"study.arms must be in augment.generators .*, got 'gan'"),
        (
            "tune.arms=[scratch]",
            r"tune.arms must be a list with one of cdbn, scratch_probabilistic, because study.arms has",
        ),
        ("privacy.gate=allow", r"privacy.gate must be one of block, warn, got 'allow'"),
        ("privacy.max_attack_auc=0.4", r"privacy.max_attack_auc must be in \(0.5, 1\], got 0.4"),
        ("dp.models=[gan]", r"dp.models must be one of vae, finetune, got 'gan'"),
        ("dp.delta=0.0", r"dp.delta must be in \(0, 1\), got 0.0"),
        ("pretrain.layers.conv2.below=prepare", r"pretrain.layers.conv2.below must be pretrain/conv1"),
    ],
)
def test_a_bad_value_is_an_error_that_names_key_value_and_rule(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_params(PARAMS, [override])


def test_private_training_has_no_free_bits() -> None:
    with pytest.raises(ValueError, match=r"vae.free_bits must be 0 where dp.models has vae"):
        load_params(PARAMS, ["dp.models=[vae]", "vae.free_bits=0.1"])


def test_several_workers_need_ray() -> None:
    with pytest.raises(ValueError, match=r"run.workers 2 needs Ray, but run.launch is local: set the one to 1"):
        load_params(PARAMS, ["run.launch=local", "run.workers=2"])


def test_a_missing_key_is_an_error_not_a_default(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().replace("  latent_dim: 8\n", ""))
    with pytest.raises(ValueError, match=r"vae.latent_dim is missing from .*: add it"):
        load_params(path)


def test_a_missing_section_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().split("\nevaluate:")[0])
    with pytest.raises(ValueError, match="section evaluate is missing"):
        load_params(path)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "run: {seed: '${nothing.here}'}"])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"params\.yaml"):
        load_params(path)


def test_scientific_notation_without_a_dot_is_a_float() -> None:
    assert load_params(PARAMS, ["vae.lr=1e-4"]).sections["vae"].lr == 1e-4


def test_every_key_is_documented_where_it_is_declared() -> None:
    for file in (PARAMS.parent / "pipeline" / "config").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and node.name != "Params":
                for field, after in zip(node.body, node.body[1:], strict=False):
                    if isinstance(field, ast.AnnAssign):
                        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                        assert documented, f"{file.name}: {node.name}.{ast.unparse(field.target)} has no docstring"
