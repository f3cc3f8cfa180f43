"""Decide the paper's claims about interpretation maps, one function a claim."""

from statistics import median

from ..paper import GAMMA
from .claims_table1 import claims, tally, with_verdicts
from .evidence import Evidence, Line
from .gamma_and_radius import choose, rows_of_small
from .nds_nsl import difference, from_record
from .sneaked_maps import RELU_IG

AT_TYPE = ("Adv", "TRADES", "IG-Norm-Sum", "Int-Adv")  # methods with an adversarial loss

FEWEST = 20  # images that a rank correlation must rest on to decide anything

USEFUL = 0.75  # area under the ROC curve, half way from chance to certainty

_TABLE1 = "30_table_1"


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
    return Line(claim, "Table 1", text, said, verdict, _TABLE1)


def integrated_gradients(evidence: Evidence) -> Line | None:
    """Table 1: with l1 and two classes IG resists ISA best, by a higher NDS and a lower NSL; IG of the network itself.

    The table's rows IG are of a softplus network under a capped search, and decide nothing about IG.
    """
    wanted = {"measure": "l1:2-class", "squared_score": False}
    rows = [*evidence.rows("isa", "released", "mnist"), *evidence.rows("isa-beyond", "released", "mnist")]
    each = {row["interpreter"]: from_record(row["each"]) for row in rows if wanted.items() <= row.items()}
    if not {RELU_IG, "CAM", "GradCAM++"} <= each.keys():
        return None
    gaps = {name: difference(each[RELU_IG], each[name]) for name in ("CAM", "GradCAM++")}
    nds, nsl = (
        [getattr(gap, score) / getattr(gap, f"{score}_se") for gap in gaps.values()] for score in ("nds", "nsl")
    )
    show = lambda gap: f"NDS {gap.nds:+.2f} ± {gap.nds_se:.2f}, NSL {gap.nsl:+.3f} ± {gap.nsl_se:.3f}"
    said = "; ".join(f"minus {name}: {show(gap)}" for name, gap in gaps.items()).replace("-", "−")
    text = f"MNIST, IG on ReLU, no cap, {min(gap.images for gap in gaps.values())} images, {said}"
    if min(nds) > 2 and max(nsl) < -2:
        verdict = "holds"
    else:  # either half alone is not resistance: a higher NDS comes with the number of pixels as well
        verdict = "does not hold" if min(nsl) > 2 else "not settled"
    claim = "IG is the map most resistant to a sneaking attack"
    return Line(claim, "Table 1", text, "", verdict, "30_table_1")


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
    return Line(
        "Int makes maps more stable than adversarial training", "Table 2", text, "", verdict, "28_starts_and_radii"
    )


def representation(evidence: Evidence) -> Line | None:
    """Table 1: with l1 and two classes, Repr is the easiest to hide from. (Its rows IG are of a softplus network.)"""
    judged = with_verdicts(c for name in ("mnist", "cifar10") for c in claims(evidence.rows("isa", "released", name)))
    of_repr = [c for c in judged if c["claim"] == "Repr" and "IG" not in (c["interpreter"], c["against_interpreter"])]
    if not of_repr:
        return None
    found = tally(of_repr)
    text = f"against CAM and GradCAM++: {found['yes']} of {len(of_repr)} settled for it, {found['no']} against"
    verdict = ("holds in part" if found["no"] else "holds") if found["yes"] else "does not hold"
    return Line("The penultimate representation is the easiest to hide from", "Table 1", text, "", verdict, _TABLE1)


def adversarial_maps(evidence: Evidence) -> Line | None:
    """Section 3: state-of-the-art defences do not preserve interpretability as eps grows, at unchanged prediction."""
    tau = {(r["method"], r["eps"]): r["tau"] for r in evidence.rows("aai", "released", "mnist") if r["n"] >= FEWEST}
    ends = {m: [tau[m, e] for e in (0.05, 0.2, 0.3, 0.35) if (m, e) in tau] for m in AT_TYPE}
    if not all(ends.values()):
        return None
    falls = [sorted(values, reverse=True) == values for values in ends.values()]
    low, high = (max(values[k] for values in ends.values()) for k in (-1, 0))
    text = f"MNIST: τ at most {high:.3f} at 0.05 and {low:.3f} at 0.35, for {', '.join(ends)}"
    claim = "Adversarial training keeps maps stable at small ε and not at large"
    verdict = "holds" if all(falls) and low < high - 0.1 else "holds in part" if any(falls) else "does not hold"
    return Line(claim, "Section 3, Table 2", text, "", verdict, "27_table_2")


def insufficient_maps(evidence: Evidence) -> Line | None:
    """Section 5: IG-Norm and Int-1-class are not sufficient for robust interpretation, where Int is."""
    at = {(r["method"], r["eps"]): r for r in evidence.rows("aai", "released", "mnist") if r["n"] >= FEWEST}
    z = {
        (m, e): (own["tau"] - other["tau"]) / (own["se"] ** 2 + other["se"] ** 2) ** 0.5
        for m in ("IG-Norm", "Int-1-class")
        for e in (0.1, 0.2, 0.3)
        if (own := at.get(("Int", e))) and (other := at.get((m, e)))
    }
    if not z:
        return None
    verdict = "holds" if min(z.values()) > 2 else "holds in part" if max(z.values()) > 2 else "does not hold"
    text = f"MNIST: Int ahead by at least {min(z.values()):.1f} standard errors in {len(z)} comparisons up to 0.3"
    claim = "IG-Norm and Int-1-class do not keep maps stable where Int does"
    return Line(claim, "Section 5, Table 2", text, "", verdict, "27_table_2")


def detection(evidence: Evidence) -> Line | None:
    """Section 2: interpretability discrepancy may be used to detect adversarial examples."""
    wanted = {"attack": "smallest", "interpreter": "CAM", "rule": "2-class", "p": 1}
    rows = [r for r in evidence.rows("detection", "released", "mnist") if wanted.items() <= r.items()]
    blind, told = ({r["method"]: r for r in rows if r["reference"] == what} for what in ("smoothed", "x"))
    if not blind or not told:
        return None
    show = lambda some: ", ".join(f"{m} {r['auc']:.2f} ± {r['se']:.2f}" for m, r in some.items())
    text = f"MNIST, area under the ROC curve without the natural image: {show(blind)}; with it: {show(told)}"
    useful = [r["auc"] - 2 * r["se"] > USEFUL for r in blind.values()]
    verdict = "holds" if all(useful) else "holds in part" if any(useful) else "does not hold"
    claim = "The discrepancy of maps may serve to detect attacks"
    return Line(claim, "Section 2", text, "", verdict, "10_detection")


def certificate(evidence: Evidence) -> Line | None:
    """Section 3: constraining the discrepancy prevents misclassification; what bounds on a ball prove of it."""
    radii = {
        row["method"]: [radius for radius in row["radii"] if radius is not None]
        for row in evidence.rows("certificates", "released", "mnist")
        if (row["kind"], row["form"]) == ("CROWN", "2-class")
    }
    if not {"Int", "Int-Adv", "Adv", "Normal"} <= radii.keys():
        return None
    middle = {m: median(radii[m]) for m in ("Int", "Int-Adv", "Adv", "Normal")}
    text = "MNIST, median radius that Proposition 1 certifies: " + ", ".join(f"{m} {r:.3f}" for m, r in middle.items())
    constrained, others = min(middle["Int"], middle["Int-Adv"]), max(middle["Adv"], middle["Normal"])
    verdict = "holds" if constrained > 2 * others else "holds in part" if constrained > others else "does not hold"
    claim = "Constraining the discrepancy of maps prevents misclassification"
    return Line(claim, "Section 3", text, "", verdict, "18_certificates")
