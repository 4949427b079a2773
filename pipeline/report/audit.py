"""A card of synthetic sets as a page of its own, and its rows for the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.artifacts import Json
from pipeline.report.content import AuditFacts, AuditRow

TEMPLATES = Path(__file__).parent / "templates"
CARD_TEMPLATE = "card.html"
OUTCOMES = {"within": "within", "beyond": "BEYOND", "open": "open"}


def audit_facts(card: Json, draw: int | None = None) -> AuditFacts:
    """The audit of a draw's set; without `draw` of the first set with the card's verdict, the worst one."""
    sets = card["sets"]
    entry = next(s for s in sets if (s["verdict"] == card["verdict"] if draw is None else s["draw"] == draw))
    training = card["differential_privacy"]
    return AuditFacts(
        verdict=entry["verdict"],
        sentence=entry["sentence"],
        draw=entry["draw"],
        draws=len(sets),
        rows=[_row(check, entry["attacks"]) for check in entry["checks"]],
        weakest_control=min(card["control"].values()),
        guarantee=training["sentence"] if training else "",
    )


def render_card(card: Json) -> str:
    """A self-contained page. Equal cards give equal text."""
    environment = make_environment()
    return environment.get_template(CARD_TEMPLATE).render(
        card=card,
        audits=[audit_facts(card, entry["draw"]) for entry in card["sets"]],
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
    )


def make_environment() -> Environment:
    """Templates of this folder: everything that enters a page is escaped, a missing value is an error."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _row(check: Mapping[str, Any], attacks: Mapping[str, Any]) -> AuditRow:
    measured = attacks.get(check["name"].removeprefix("attack "), {})
    rates = [f"{100 * measured[key]['value']:.1f}" if measured else "" for key in ("tpr_at_1", "tpr_at_10")]
    return AuditRow(
        name=check["name"],
        value=f"{check['value']:.3f}",
        interval=f"{check['low']:.3f} to {check['high']:.3f}",
        limit=f"{'≤' if check['at_most'] else '≥'} {check['limit']:g}",
        outcome=OUTCOMES[check["outcome"]],
        rates=rates,
    )
