"""Decide the paper's claims, each by the strongest evidence that the records hold: one line a claim."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from ..paper import DATASETS, GAMMA, STATEMENTS, UNFORESEEN_STATEMENTS, Statement
from .claims_robustness import Finding, findings
from .claims_table1 import claims, tally, with_verdicts
from .compare import compare
from .comparisons import Measured, compared
from .evaluation import IMAGES, TRAINING_EPS
from .gamma_and_radius import choose, gamma_rows, rows_of_small
from .records import Record, outcomes_of

VERDICTS = ("holds", "holds in part", "does not hold", "not settled", "cannot be tested here")

# Measurements of accuracies, the strongest attack first: APGD, PGD from five random starts, from x, on fewer images.
EVIDENCE = ("strong", "starts", "many", "pgd")

OF_OURS = EVIDENCE[1:]  # the networks that we trained have not met APGD

AS_PRINTED = EVIDENCE[-1:]  # of Table 5, whose attack is its own


@dataclass(frozen=True)
class Line:
    """One claim and what is known of it.

    Attributes:
        claim: the claim, in short.
        where: where the paper makes it.
        released: what the released networks say, with numbers.
        ours: what the networks that we trained say; '' where they were not asked.
        verdict: one of `VERDICTS`, by the released networks.
        chapter: file name of the page with the experiment.
    """

    claim: str
    where: str
    released: str
    ours: str
    verdict: str
    chapter: str


def lines(results: Sequence[Record]) -> list[Line]:
    """Return every claim with its evidence: single claims, then the statements of section 5; what holds first.

    A claim whose records are missing is left out.

    Args:
        results: all records, see `records.read_all`.
    """
    evidence = Evidence(results)
    single = (proposition, table1, stable_maps, no_masking, matched_radius, ig_weight, unforeseen_rivals, figure_a1)
    made = [line for make in single if (line := make(evidence))]
    by_verdict = lambda line: VERDICTS.index(line.verdict)
    return sorted(made, key=by_verdict) + sorted(section5(evidence), key=by_verdict)


class Evidence:
    """The records, and comparisons with print that are computed once."""

    def __init__(self, results: Sequence[Record]):
        self.results = results
        self.cells: Callable = cache(lambda accuracies: compare(results, accuracies))

    def rows(self, measurement: str, networks: str, dataset: str, model: str = "small") -> list[dict]:
        """Return the rows of all records of a measurement."""
        wanted = {"measurement": measurement, "networks": networks, "dataset": dataset, "model": model}
        return [
            row
            for record in self.results
            if wanted.items() <= {key: record.settings.get(key) for key in wanted}.items()
            for row in record.rows
        ]

    def images(self, measurement: str, network: str, source: str) -> int:
        """Return on how many images a measurement rests, for a network as in `STATEMENTS`; 200 without a record."""
        title, model = network.split()
        rows = self.rows(measurement, source, DATASETS[title], model.lower())
        return max((row["n"] for row in rows if row.get("attack") != "Square"), default=IMAGES)


def decided(settled: Iterable[str]) -> str:
    """Return the verdict on a claim from the verdicts on its parts, 'yes', 'no', 'none left' or others."""
    parts = list(settled)
    if "yes" in parts:
        return "holds" if set(parts) == {"yes"} else "holds in part"
    return "does not hold" if {"no", "none left"} & set(parts) else "not settled"


# Claims about interpretation


def proposition(evidence: Evidence) -> Line | None:
    """Proposition 1: the discrepancy of the 2-class CAMs is at least half the margin, for every successful attack."""
    records = [r for r in evidence.results if r.settings.get("measurement") == "tightness"]
    rows = [row for record in records for row in record.rows if row["n"]]
    if not rows:
        return None
    networks = len({row["weights"] for row in rows})
    violations, attacks = (sum(row[key] for row in rows) for key in ("violations", "n"))
    least = min(row["smallest"] for row in rows)
    text = (
        f"{attacks:,} attacks on {networks} networks: {violations} violations; discrepancy at least {least:.4f} × bound"
    )
    verdict = "holds" if violations == 0 else "does not hold"
    claim = "An attack on the class must change the CAMs of true and target class"
    return Line(claim, "Proposition 1", text, "", verdict, "11_appendix_a")


def table1(evidence: Evidence) -> Line | None:
    """Table 1: the 2-class discrepancy of CAMs is the one that an attack can least hide."""
    rows = {name: evidence.rows("isa", "released", name) for name in ("mnist", "cifar10")}
    judged = with_verdicts(claim for of in rows.values() for claim in claims(of))
    of_cams = [c for c in judged if c["claim"] == "2-class" and c["interpreter"] in ("CAM", "GradCAM++")]
    if not of_cams:
        return None
    found = tally(of_cams)
    signs = sum(c["as_claimed"] for c in of_cams)
    settled = f"{found['yes']} settled for it, {found['no']} against"
    text = f"{signs} of {len(of_cams)} comparisons have the paper's sign, {settled}"
    ours = evidence.rows("isa", "ours", "mnist")
    seeds = {row.get("seed") for row in ours}
    own = [c for s in seeds for c in with_verdicts(claims(row for row in ours if row.get("seed") == s))]
    of_own = [c for c in own if c["claim"] == "2-class" and c["interpreter"] in ("CAM", "GradCAM++")]
    said = f"{sum(c['as_claimed'] for c in of_own)} of {len(of_own)} on {len(seeds)} seeds" if of_own else ""
    verdict = "holds" if found["yes"] > 0.8 * len(of_cams) and not found["no"] else "holds in part"
    claim = "Of CAM and GradCAM++, ℓ1 on both classes is hardest to hide from"
    return Line(claim, "Table 1", text, said, verdict, "04_attacks_on_maps")


def stable_maps(evidence: Evidence) -> Line | None:
    """Table 2, with the radius of training matched: Int's maps keep more of their order than Adv's."""
    rows, z = choose(rows_of_small(evidence.results, "aai", "mnist"), method=["Adv", "Int"], gamma=[None, GAMMA]), []
    at = {(row["method"], row["radius"], row["run"], round(row["eps"], 6)): row for row in rows}
    for (method, radius, run, eps), row in at.items():
        other = at.get(("Adv", radius, run, eps))
        if method == "Int" and other and 0.2 <= eps <= radius + 1e-6:
            z.append((row["tau"] - other["tau"]) / (row["se"] ** 2 + other["se"] ** 2) ** 0.5)
    if not z:
        return None
    text = f"MNIST: ahead of Adv by at least {min(z):.1f} standard errors in {len(z)} comparisons at equal radius"
    verdict = "holds" if min(z) > 2 else "holds in part" if max(z) > 2 else "does not hold"
    return Line("Int makes maps more stable than adversarial training", "Table 2", text, "", verdict, "07_robustness")


# Claims about robustness


def no_masking(evidence: Evidence) -> Line | None:
    """Tables 3 and 4: no obfuscated gradients. An attack from elsewhere must not find much more than PGD from x."""
    rows = {kind: evidence.rows(kind, "released", "mnist") for kind in ("pgd", "starts", "strong")}
    if not all(rows.values()):
        return None
    steps = {"pgd": ("steps", 200), "starts": ("starts", 5)}

    def left(kind: str, eps: float) -> float:
        key, value = steps[kind]
        return next(r["accuracy"] for r in rows[kind] if (r["method"], r["eps"], r[key]) == ("Int", eps, value))

    def broken(method: str) -> tuple[int, int]:
        at = {r["attack"]: r for r in rows["strong"] if (r["method"], r["eps"]) == (method, TRAINING_EPS["mnist"])}
        before = sum(outcomes_of(at["APGD-T"]["right"], at["APGD-T"]["n"])[: at["Square"]["n"]])
        return before - at["Square"]["correct"], before

    gaps = {eps: left("pgd", eps) - left("starts", eps) for eps in (TRAINING_EPS["mnist"], 0.35)}
    count, of = broken("Int")
    text = (
        f"MNIST Int: random starts take {gaps[0.3]:.3f} at 0.3 and {gaps[0.35]:.3f} at 0.35 from PGD from x; "
        f"Square breaks {count} of {of} that APGD leaves at 0.3"
    )
    # Up to the radius of training most of the accuracy must survive attacks from elsewhere and without gradients.
    up_to, beyond = gaps[0.3] < 0.05 and count < 0.1 * of, gaps[0.35] < 0.05
    verdict = "holds" if up_to and beyond else "holds in part" if up_to or beyond else "does not hold"
    return Line(
        "Int does not owe its accuracy to masked gradients", "Tables 3, 4", text, "", verdict, "09_strong_attacks"
    )


def matched_radius(evidence: Evidence) -> Line | None:
    """The paper's conclusion beyond the radius of training, with the radius of training matched."""
    rows = choose(
        rows_of_small(evidence.results, "many", "mnist"), method=["Adv", "Int"], radius=0.4, gamma=[None, GAMMA]
    )
    at = {(row["method"], round(row["eps"], 6)): row for row in rows}
    pairs = [(eps, at.get(("Int", eps)), at.get(("Adv", eps))) for eps in (0.35, 0.4)]
    found = [
        (eps, compared(*(Measured.of_rows([r]) for r in (one, other)))) for eps, one, other in pairs if one and other
    ]
    if not found:
        return None
    text = "; ".join(f"{eps:g}: {c.difference:+.3f} ± {c.error:.3f}".replace("-", "−") for eps, c in found)
    settled = ["not settled" if c.p > 0.05 / len(found) else "yes" if c.difference > 0 else "no" for _, c in found]
    claim = "Int outperforms adversarial training at large ε, both trained at 0.4"
    return Line(claim, "Abstract", f"MNIST, Int minus Adv at {text}", "", decided(settled), "07_robustness")


def ig_weight(evidence: Evidence) -> Line | None:
    """'IG-Norm fails to defend': by the weight of its authors it is another method."""
    eps = TRAINING_EPS["mnist"]
    released = [r for r in evidence.rows("many", "released", "mnist") if (r["method"], r["eps"]) == ("IG-Norm", eps)]
    ours: dict[str, list[float]] = {}
    for row in evidence.rows("many", "ours", "mnist"):
        if row["eps"] == eps:
            ours.setdefault(row["method"], []).append(row["accuracy"])
    if not released or "Chen-IG-Norm" not in ours or "IG-Norm" not in ours:
        return None
    own, chens = (fmean(ours[method]) for method in ("IG-Norm", "Chen-IG-Norm"))
    text = f"MNIST at 0.3: {released[0]['accuracy']:.3f} with the weight 1/50 of the released code"
    said = f"{own:.3f} with 1/50, {chens:.3f} with its authors' weight 1"
    verdict = "holds in part" if chens > own + 0.1 else "holds"
    return Line("Keeping integrated gradients does not defend", "Section 5", text, said, verdict, "06_training")


def unforeseen_rivals(evidence: Evidence) -> Line | None:
    """Table 5: 'Int also yields quite competitive robustness compared to AT-type methods on most attacks'."""
    everything = _found(evidence, "CIFAR-10 Small", UNFORESEEN_STATEMENTS, AS_PRINTED, "released")
    found = [finding for finding in everything if finding.statement.better == "Adv"]
    if not found:
        return None
    ahead = [f.level for f in found if f.verdict == "yes"]
    gaps = [-f.difference for f in found]
    text = f"Int minus Adv {min(gaps):+.3f} to {max(gaps):+.3f}; Adv settled ahead under {len(ahead)} of {len(found)}"
    verdict = "holds" if 2 * len(ahead) < len(found) else "does not hold"
    claim = "Int keeps up with adversarial training under most unforeseen attacks"
    return Line(claim, "Table 5", text.replace("-", "−"), "", verdict, "08_unforeseen_attacks")


def figure_a1(evidence: Evidence) -> Line | None:
    """Appendix C: a larger gamma costs clean accuracy and, up to a point, buys robust accuracy."""
    rows = [row for row in gamma_rows(evidence.results) if row["run"] == 1 or row["gamma"] != GAMMA]
    clean, robust = ({r["gamma"]: r["accuracy"] for r in rows if r["eps"] == e} for e in (0.0, TRAINING_EPS["mnist"]))
    if len(clean) < 3:
        return None
    falls = all(clean[b] <= clean[a] + 0.005 for a, b in zip(sorted(clean), sorted(clean)[1:], strict=False))
    best = max(robust, key=robust.__getitem__)
    text = (
        f"clean {clean[min(clean)]:.3f} to {clean[max(clean)]:.3f} over γ = {min(clean):g} to {max(clean):g}; "
        f"robust most at γ = {best:g}, {robust[best]:.3f}"
    )
    verdict = "holds" if falls and 0 < best < max(robust) else "holds in part"
    return Line("γ trades clean for robust accuracy", "Figure A1", text, "", verdict, "13_appendix_c")


def section5(evidence: Evidence) -> list[Line]:
    """Return the statements of section 5 about which method is more accurate than which, and Table 5's."""
    result = []
    groups = [(network, statements, EVIDENCE, OF_OURS) for network, statements in STATEMENTS.items()]
    for network, statements, *kinds in [*groups, ("CIFAR-10 Small", UNFORESEEN_STATEMENTS, AS_PRINTED, AS_PRINTED)]:
        found, own = (
            _found(evidence, network, statements, *pair) for pair in zip(kinds, ("released", "ours"), strict=True)
        )
        unforeseen, main = statements is UNFORESEEN_STATEMENTS, network in ("MNIST Small", "CIFAR-10 WResnet")
        where = "Table 5" if unforeseen else "Section 5" if main else "Tables A1, A2"
        chapter = "08_unforeseen_attacks" if unforeseen else "06_training" if main else "15_appendix_e"
        for statement in statements:
            parts, of_ours = ([f for f in some if f.statement is statement] for some in (found, own))
            if parts and not (unforeseen and statement.better == "Adv"):  # that one is `unforeseen_rivals`
                text, said = ("; ".join(map(_said, some)) for some in (parts, of_ours))
                verdict = decided(finding.verdict for finding in parts)
                result.append(Line(f"{network}: {statement.text}", where, text, said, verdict, chapter))
    return result


def _found(
    evidence: Evidence, network: str, statements: Iterable[Statement], kinds: Sequence[str], source: str
) -> list[Finding]:
    """Return a finding for each level of the statements, from the first kind of evidence that has one."""
    best: dict[tuple, Finding] = {}
    for kind in kinds:
        images = evidence.images(kind, network, source)
        cells = evidence.cells(kind)
        for finding in findings(cells, network=network, source=source, images=images, statements=statements):
            best.setdefault((finding.statement, finding.level), finding)
    return [best[key] for s in statements for level in s.levels if (key := (s, level)) in best]


def _said(finding: Finding) -> str:
    difference = f"{finding.difference:+.3f} ± {finding.error:.3f}".replace("-", "−")
    images = f", n = {finding.images:,}"
    if finding.verdict == "none left":
        return f"{finding.level}: none left{images}"
    if finding.verdict == "not trained":
        return f"{finding.level}: {finding}"
    return f"{finding.level}: {finding.verdict}, {difference}{images}"
