"""The report is one page that says the verdict first, needs no network, and is the same for the same content."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.artifacts import read_json, read_table, write_json, write_table, write_text
from pipeline.config.load import load_params
from pipeline.metrics.verdicts import say_points
from pipeline.report.content import Content, Difference
from pipeline.report.figures import ARM_COLOURS, INK, MUTED, RULE
from pipeline.report.html import Forest, render
from pipeline.report.reproduction import describe_environment, read_commit
from pipeline.stage import Stage
from stages.report import SPEC, report
from tests.report_fixture import ROOT, fabricate, make_content

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what a page is made of, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.headings: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    fabricate(root)
    return root


@pytest.fixture(scope="module")
def content(made: Path) -> Content:
    return make_content(made, load_params(made / "params.yaml"))


@pytest.fixture(scope="module")
def page(content: Content) -> Page:
    return Page(render(content))


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "project"))


def render_project(root: Path) -> str:
    return render(make_content(root, load_params(root / "params.yaml")))


def test_the_verdict_stands_before_the_first_figure(page: Page, content: Content) -> None:
    assert page.headings[0] == content.verdict.headline.split(" (")[0].rstrip(".")
    tags = [tag for tag, _ in page.elements]
    assert tags.index("h1") < tags.index("table") < min(tags.index("svg"), tags.index("img"), tags.index("figure"))


def test_the_page_refers_to_nothing_outside_itself(page: Page) -> None:
    for tag, attributes in page.elements:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            assert attributes.get(key, "#").startswith(("#", "data:")), f"<{tag} {key}={attributes[key]}>"
    assert page.all("script") == page.all("iframe") == page.all("object") == []
    assert not re.search(r"https?://|@import|url\((?!#)", page.text)


def test_every_picture_says_what_it_shows(page: Page) -> None:
    # data, generators; filters, reconstructions and chains of three layers; an application
    assert len(page.all("img")) == 1 + 2 + 3 * 3 + 1
    assert all(len(image["alt"]) > 15 for image in page.all("img"))
    assert all(len(svg["aria-label"]) > 15 for svg in page.all("svg") if svg["role"] == "img")


def test_the_page_holds_every_section(page: Page) -> None:
    sections = [attributes["id"] for attributes in page.all("section")]
    wanted = [
        "verdict",
        "efficiency",
        "comparisons",
        "arms",
        "generators",
        "dbn",
        "sweep",
        "final",
        "applications",
        "data",
        "reproduce",
    ]
    assert sections == wanted
    links = {link["href"].removeprefix("#") for link in page.all("a")}
    assert links == set(sections) - {"verdict"}


def test_every_difference_of_the_table_is_on_the_page_with_its_interval(page: Page, made: Path) -> None:
    rows = read_table(made / paths.EVALUATE / "comparisons.csv")
    assert len(rows) == 18
    for row in rows:
        low, high = say_points(float(row["low"])), say_points(float(row["high"]))
        assert page.text.count(f"{low} to {high}") >= 2  # in the verdict and among the comparisons
    sentences = read_json(made / paths.EVALUATE / "verdict.json")["sentences"]
    labels = {svg["aria-label"] for svg in page.all("svg")}
    assert set(sentences) <= labels


def test_equal_content_gives_equal_bytes_without_dates_or_paths_of_this_machine(page: Page, made: Path) -> None:
    assert render_project(made) == page.text
    assert str(made) not in page.text
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", page.text)
    assert not re.search(r">\s*(nan|inf|None)\b", page.text, flags=re.IGNORECASE)


def test_figures_take_their_colours_from_the_page(page: Page) -> None:
    for marker in (INK, MUTED, RULE, *ARM_COLOURS.values()):
        assert marker not in page.text
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", page.text)) == set()
    used = set(re.findall(r"var\((--[\w-]+)\)", page.text))
    assert used <= set(re.findall(r"(--[\w-]+):", page.text))


def test_names_of_classes_are_escaped(project: Path) -> None:
    manifest = read_json(project / paths.PREPARED / "manifest.json")
    counts = read_json(project / paths.metrics("prepare"))
    for split in counts.values():
        split["classes"]["<script>alert(1)</script>"] = split["classes"].pop("0")
    write_json(project / paths.metrics("prepare"), counts)
    write_json(project / paths.PREPARED / "manifest.json", manifest)
    text = render_project(project)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_study_without_gan_says_so(tmp_path: Path) -> None:
    params = fabricate(tmp_path, generators=("vae",))
    text = render(make_content(tmp_path, params))
    assert "No GAN: augment.generators does not name it." in text
    assert "Generative adversarial network" not in text
    assert "Variational autoencoder" in text


def test_missing_optional_files_are_named_and_left_out(project: Path) -> None:
    shutil.rmtree(project / paths.TUNE)
    shutil.rmtree(project / paths.plots("pretrain@conv1"))
    (project / paths.synthetic("gan") / "quality.json").unlink()
    page = Page(render_project(project))
    for path in ("out/tune/best.json", "plots/pretrain-conv1/filters.png", "out/augment/gan/quality.json"):
        assert f"{path} is missing" in page.text
    assert "sweep" not in [attributes["id"] for attributes in page.all("section")]


def test_pictures_of_a_sweep_are_shown_where_its_stage_drew_them(project: Path) -> None:
    alt = "How much of the variance between the trials of “from scratch” each setting explains."
    assert alt not in render_project(project)
    write_text(project / paths.plots("tune") / "importance-scratch.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>')
    shown = [attributes for attributes in Page(render_project(project)).all("img") if attributes["alt"] == alt]
    assert [attributes["src"].split(",")[0] for attributes in shown] == ["data:image/svg+xml;base64"]


def test_one_seed_is_not_judged(tmp_path: Path) -> None:
    params = fabricate(tmp_path, seeds=1)
    page = Page(render(make_content(tmp_path, params)))
    assert "One seed cannot tell an effect from luck" in page.headings[0]
    comparisons = page.text.split('<section id="comparisons">')[1].split("</section>")[0]
    assert "interval" not in comparisons
    assert comparisons.count("cannot be judged</span>") == 18
    assert "nothing here can be judged" in page.text


def test_many_classes_give_a_list_of_confusions_instead_of_a_matrix(project: Path) -> None:
    names = [f"kind {number}" for number in range(25)]
    cells = [
        {"actual": a, "predicted": b, "count": 7 if (a, b) == ("kind 3", "kind 4") else int(a == b)}
        for a in names
        for b in names
    ]
    write_table(project / paths.EVALUATE / "confusion.csv", cells)
    told = read_json(project / paths.EVALUATE / "finetune.json")
    write_json(project / paths.EVALUATE / "finetune.json", told | {"recall": dict.fromkeys(names)})
    text = render_project(project)
    assert "Most frequent errors" in text
    assert re.search(r"<td>kind 3</td><td>kind 4</td><td class=\"n\">7</td>", text)


def test_intervals_in_the_table_share_one_axis_that_holds_them_all() -> None:
    def difference(value: float, low: float | None, high: float | None) -> Difference:
        return Difference("vae", "scratch", "VAE", 50, value, low, high, 0.5, "no measurable effect", "")

    forest = Forest.over([difference(0.01, -0.05, 0.07), difference(0.1, 0.05, 0.15), difference(0.2, None, None)])
    low, zero, high = float(forest.at(-0.05)), float(forest.at(0)), float(forest.at(0.2))
    assert low == pytest.approx(100 * 0.04 / 1.08, abs=0.01)  # margins of 4 % on either side
    assert high == pytest.approx(100 - low, abs=0.01)
    assert zero == pytest.approx(low + 0.2 * (high - low), abs=0.02)


def test_the_stage_writes_the_same_page_twice(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    pages = []
    for _ in range(2):
        stage = Stage(SPEC, params=load_params(project / "params.yaml"), work=project / "work", root=project)
        report(stage)
        stage.publish()
        pages.append((project / paths.REPORT / "index.html").read_bytes())
    assert pages[0] == pages[1]
    assert "report/index.html" in capsys.readouterr().out


def test_the_templates_are_an_input_of_the_stage() -> None:
    templates = SPEC.inputs[-1]
    assert (ROOT / templates / "page.html").is_file()


def test_commit_is_that_of_code_and_params_and_marked_when_they_differ(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert read_commit(tmp_path) is None
    git("init", "--quiet")
    assert read_commit(tmp_path) is None
    for name in ("params.yaml", "dvc.lock"):
        (tmp_path / name).write_text("a")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    head = git("rev-parse", "HEAD")
    assert read_commit(tmp_path) == head
    (tmp_path / "dvc.lock").write_text("rewritten by dvc")
    assert read_commit(tmp_path) == head
    git("commit", "--quiet", "--all", "--message", "record the run")
    assert read_commit(tmp_path) == head
    (tmp_path / "params.yaml").write_text("b")
    assert read_commit(tmp_path) == f"{head} with uncommitted changes"


def test_environment_names_versions_and_machine_and_does_not_change() -> None:
    environment = describe_environment()
    assert environment == describe_environment()
    assert {"python", "torch", "ray", "dvc", "cpu"} <= set(environment)


def test_a_layer_shows_its_likelihood_with_the_interval_or_says_why_it_has_none(page: Page) -> None:
    labels = [svg["aria-label"] for svg in page.all("svg")]
    shown = [label for label in labels if label.startswith("Pseudo-likelihood of layer")]
    assert shown == [
        "Pseudo-likelihood of layer dense over training, at the end -80.8 nats per validation image; "
        "log-likelihood -90.0, from -92.0 to -88.0, after 400 updates."
    ]
    assert page.text.count("-90.0 nats per validation image, 95 % interval -92.0 to -88.0") == 1
    assert page.text.count("No log-likelihood: log Z is annealed for dense layers of bernoulli units alone.") == 2
    assert page.text.count("after 0, 1, 3, 10, 30, 100, 300 rounds") == 3


def test_a_layer_whose_looks_were_all_refused_shows_no_number(project: Path) -> None:
    table = project / paths.plots("pretrain@dense") / "free_energy.csv"
    rows = [{key: "" if "log_" in key else value for key, value in row.items()} for row in read_table(table)]
    write_table(table, rows)
    metrics = project / paths.metrics("pretrain@dense")
    write_json(metrics, {"log_likelihood": None, "log_likelihood_refused": "log Z rests on 2.5 effective chains"})
    text = render_project(project)
    assert "No log-likelihood: log Z rests on 2.5 effective chains." in text
    assert "Pseudo-likelihood of layer dense" in text
    assert "; log-likelihood" not in text
    assert "Log-likelihood at the end" not in text


def test_the_audit_stands_beside_the_generator_and_the_worst_set_is_shown(tmp_path: Path) -> None:
    content = make_content(tmp_path, fabricate(tmp_path))
    audits = {generator.kind: generator.audit for generator in content.generators}
    vae, gan = audits["vae"], audits["gan"]
    assert vae is not None
    assert gan is not None
    assert (vae.verdict, vae.draw, vae.guarantee) == ("passed", 0, "Differentially private training.")
    assert (gan.verdict, gan.draw, gan.guarantee) == ("failed", 1, "")
    assert [row.outcome for row in gan.rows] == ["BEYOND", "within"]
    assert gan.rows[0].rates == ["2.0", "2.0"]
    page = render(content)
    assert page.count("0.710") == 1
    assert "0.680 to 0.740" in page
    assert "Differentially private training." in page
