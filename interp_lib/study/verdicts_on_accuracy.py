"""Decide the paper's claims about accuracy and cost, one function a claim."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from ..paper import GAMMA, UNFORESEEN_STATEMENTS, Statement
from .claims_robustness import Finding, findings
from .comparisons import Measured, compared
from .evaluation import TRAINING_EPS
from .evidence import Evidence, Line, decided
from .gamma_and_radius import choose, gamma_rows, rows_of_small
from .records import outcomes_of

AS_PRINTED = ("pgd",)  # the evidence on Table 5, whose attack is its own

SIMILAR = 2.0  # two costs are similar if neither is twice the other


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
    return Line(claim, "Abstract", f"MNIST, Int minus Adv at {text}", "", decided(settled), "28_starts_and_radii")


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
    return Line("Keeping integrated gradients does not defend", "Section 5", text, said, verdict, "25_ig_baselines")


def unforeseen_rivals(evidence: Evidence) -> Line | None:
    """Table 5: 'Int also yields quite competitive robustness compared to AT-type methods on most attacks'."""
    everything = strongest(evidence, "CIFAR-10 Small", UNFORESEEN_STATEMENTS, AS_PRINTED, "released")
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


def strongest(
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


def cost(evidence: Evidence) -> Line | None:
    """Figure 3: Int costs about as much as adversarial training, IG-based training three times Int-Adv."""
    ms = {r["method"]: r["ms_a_step_plain"] for r in evidence.rows("training-time", "ours", "mnist")}
    if not {"Adv", "TRADES", "Int", "Int-Adv", "IG-Norm", "IG-Norm-Sum"} <= ms.keys():
        return None
    of_ig = min(ms["IG-Norm"], ms["IG-Norm-Sum"]) / ms["Int-Adv"]
    others = [ms[m] / ms["Adv"] for m in ("TRADES", "Int", "Int-Adv")]
    text = (
        f"a plain training loop, MNIST Small: IG methods {of_ig:.1f} × Int-Adv; TRADES, Int and Int-Adv "
        f"{min(others):.1f} to {max(others):.1f} × Adv"
    )
    parts = [of_ig > SIMILAR, max(others) < SIMILAR]
    verdict = "holds" if all(parts) else "holds in part" if any(parts) else "does not hold"
    claim = "Int costs like adversarial training, IG three times as much"
    return Line(claim, "Figure 3", text, "", verdict, "23_training_time")
