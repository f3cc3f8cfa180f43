"""The page of verdicts: what decides a claim, and the committed records' verdicts by other means."""

import json

import pytest
from conftest import ROOT, record, row

from interp_lib.paper import STATEMENTS
from interp_lib.study import records, verdicts
from interp_lib.study.evidence import VERDICTS, Evidence, decided
from interp_lib.study.intervals import mcnemar
from interp_lib.study.records import outcome_digits, outcomes_of

PAGES = {path.stem for path in (ROOT / "book").glob("*.ipynb")}


@pytest.fixture(scope="module")
def committed():
    return records.read_all(ROOT / "results")


@pytest.fixture(scope="module")
def lines(committed):
    return verdicts.lines(committed)


def rows_of(name):
    (path,) = (ROOT / "results").glob(f"{name}-????????.json")
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize(
    "parts, verdict",
    [
        (["yes", "yes"], "holds"),
        (["yes", "not settled"], "holds in part"),
        (["yes", "no"], "holds in part"),
        (["no", "not settled"], "does not hold"),
        (["none left"], "does not hold"),
        (["not settled"], "not settled"),
        (["not trained"], "not settled"),
    ],
)
def test_a_claim_is_decided_by_its_parts(parts, verdict):
    assert decided(parts) == verdict


def test_without_records_there_are_no_lines():
    assert verdicts.lines([]) == []


def test_every_line_has_a_known_verdict_evidence_and_a_page(lines):
    assert {line.verdict for line in lines} <= set(VERDICTS)
    assert all(line.released and line.where and line.chapter in PAGES for line in lines)
    order = [VERDICTS.index(line.verdict) for line in lines]
    statements = [": " in line.claim for line in lines]
    cut = statements.index(True)
    assert order[:cut] == sorted(order[:cut]) and order[cut:] == sorted(order[cut:]) and all(statements[cut:])


def test_every_statement_of_section_5_is_there(lines):
    claims = {line.claim for line in lines}
    assert {f"{network}: {s.text}" for network, some in STATEMENTS.items() for s in some} <= claims


def test_stronger_evidence_comes_before_weaker():
    """From x Int is ahead at 0.35; from random starts nothing is left of either."""

    def of(measurement, correct, **more):
        right = {m: outcome_digits([i < c for i in range(200)]) for m, c in correct.items()}
        return [
            row(
                200 if e == 0 else c,
                method=m,
                eps=e,
                right=outcome_digits([True] * 200) if e == 0 else right[m],
                **more,
            )
            for m, c in correct.items()
            for e in (0.0, 0.35)
        ]

    from_x = record(of("pgd", {"Int": 100, "Adv": 2}))
    starts = record(of("starts", {"Int": 0, "Adv": 0}, starts=5), measurement="starts")
    line = lambda *some: next(
        one
        for one in verdicts.section5(Evidence(some))
        if one.claim == "MNIST Small: Int is above Adv beyond the training ε"
    )
    assert line(from_x).verdict == "holds" and line(from_x).released.startswith("0.35: yes, +0.490")
    assert line(from_x, starts).verdict == "does not hold" and "none left" in line(from_x, starts).released


# The committed records, evaluated again without the code under test


def verdict_of(lines, claim):
    (line,) = [line for line in lines if line.claim.startswith(claim)]
    return line


def test_proposition_1_again(lines, committed):
    rows = [r for one in committed if one.settings.get("measurement") == "tightness" for r in one.rows if r["n"]]
    line = verdict_of(lines, "An attack on the class")
    assert line.verdict == "holds" and min(r["smallest"] for r in rows) >= 1 - 1e-5
    assert f"{sum(r['n'] for r in rows):,} attacks" in line.released


def test_matched_radius_again(lines):
    rows = {(r["method"], r.get("radius"), r.get("gamma"), r["eps"]): r for r in rows_of("many-mnist-small-sweeps")}
    ps = []
    for eps in (0.35, 0.4):
        adv = next(r for (m, radius, _, e), r in rows.items() if (m, radius, e) == ("Adv", 0.4, eps))
        own = next(r for (m, radius, g, e), r in rows.items() if (m, radius, g, e) == ("Int", 0.4, 0.01, eps))
        assert adv["correct"] > own["correct"]
        ps.append(mcnemar(outcomes_of(own["right"], own["n"]), outcomes_of(adv["right"], adv["n"])))
    assert max(ps) < 0.001 and verdict_of(lines, "Int outperforms").verdict == "does not hold"


def test_stable_maps_again(lines):
    tables = {(r["method"], 0.3, 1, r["eps"]): r for r in rows_of("aai-mnist-small-released")}
    sweeps = {
        (r["method"], r["radius"], r["run"], r["eps"]): r
        for r in rows_of("aai-mnist-small-sweeps")
        if r["method"] == "Adv" or r.get("gamma") == 0.01
    }
    at = {**tables, **sweeps}
    pairs = [(k, ("Adv", *k[1:])) for k in at if k[0] == "Int" and 0.2 <= k[3] <= k[1]]
    assert len(pairs) == 9 and all(at[one]["tau"] > at[other]["tau"] for one, other in pairs)
    assert verdict_of(lines, "Int makes maps").verdict == "holds"


def test_the_weight_of_ig_norm_again(lines):
    ours = rows_of("many-mnist-small-ours")
    mean = lambda method: (
        sum(r["accuracy"] for r in ours if (r["method"], r["eps"], r["schedule"]) == (method, 0.3, "quick"))
        / len([r for r in ours if (r["method"], r["eps"], r["schedule"]) == (method, 0.3, "quick")])
    )
    assert mean("IG-Norm") < 0.05 and mean("Chen-IG-Norm") > 0.2
    line = verdict_of(lines, "Keeping integrated gradients")
    assert line.verdict == "holds in part" and f"{mean('Chen-IG-Norm'):.3f}" in line.ours


def test_a_statement_is_settled_by_the_outcomes_image_by_image(lines):
    rows = {(r["method"], r["eps"], r["starts"]): r for r in rows_of("starts-mnist-small-released")}
    one, other = rows["Int", 0.3, 5], rows["Int-1-class", 0.3, 5]
    assert mcnemar(*(outcomes_of(r["right"], r["n"]) for r in (one, other))) < 1e-6
    line = verdict_of(lines, "MNIST Small: Int-1-class fails")
    assert line.verdict == "holds"


def test_a_missing_record_leaves_its_line_out(committed):
    without = [one for one in committed if one.settings.get("measurement") != "tightness"]
    assert not any(line.claim.startswith("An attack on the class") for line in verdicts.lines(without))


def test_unstable_maps_again(lines):
    at = {(r["method"], r["eps"]): r for r in rows_of("aai-mnist-small-released")}
    for method in ("Adv", "TRADES", "IG-Norm-Sum", "Int-Adv"):
        assert at[method, 0.05]["tau"] > 0.97 and at[method, 0.35]["tau"] < 0.7
    assert verdict_of(lines, "Adversarial training keeps maps").verdict == "holds"
    for eps in (0.1, 0.2, 0.3):
        own, others = at["Int", eps], [at[m, eps] for m in ("IG-Norm", "Int-1-class")]
        assert all(own["tau"] - 2 * own["se"] > other["tau"] + 2 * other["se"] for other in others)
    assert verdict_of(lines, "IG-Norm and Int-1-class do not keep").verdict == "holds"


def test_detection_again(lines):
    """Normal's area does not differ from one half; with the natural image everything is detected."""
    rows = [
        r for r in rows_of("detection-mnist-small-released") if (r["attack"], r["interpreter"]) == ("smallest", "CAM")
    ]
    auc = {(r["method"], r["reference"]): r for r in rows if (r["rule"], r["p"]) == ("2-class", 1)}
    assert abs(auc["Normal", "smoothed"]["auc"] - 0.5) < 2 * auc["Normal", "smoothed"]["se"]
    assert min(r["auc"] for (_, reference), r in auc.items() if reference == "x") > 0.9
    assert verdict_of(lines, "The discrepancy of maps").verdict == "holds in part"


def test_cost_again(lines):
    (path,) = (ROOT / "results").glob("training-time-mnist-small-????????.json")
    ms = {r["method"]: r["ms_a_step_plain"] for r in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    assert 2.5 < ms["IG-Norm"] / ms["Int-Adv"] < 3.5 and ms["Int"] > 2 * ms["Adv"]
    assert verdict_of(lines, "Int costs like").verdict == "holds in part"


def test_the_representation_again(lines, committed):
    (one,) = [
        r
        for r in committed
        if r.family == "isa-mnist-small-released" and r.settings["interpreters"] == ["CAM", "GradCAM++", "Repr"]
    ]
    rows = {r["interpreter"]: r for r in one.rows if (r["measure"], r["squared_score"]) == ("l1:2-class", False)}
    assert min(rows, key=lambda name: rows[name]["nds"]) == "Repr" == max(rows, key=lambda name: rows[name]["nsl"])
    assert verdict_of(lines, "The penultimate representation").verdict == "holds"


def test_integrated_gradients_again(lines):
    """Image by image, over the same images, the score of IG falls further than the CAM's, from a higher level."""
    each = lambda family, name: next(
        row["each"]
        for path in (ROOT / "results").glob(f"{family}-mnist-small-released-????????.json")
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]
        if (row["interpreter"], row["measure"], row["squared_score"]) == (name, "l1:2-class", False)
    )
    pairs = [(a, b) for a, b in zip(each("isa-beyond", "IG (ReLU)"), each("isa", "CAM"), strict=False) if a and b]
    totals = [[sum(image[k] for image in side) for k in range(3)] for side in zip(*pairs, strict=True)]
    nds, nsl = ([total[k] / total[0] for total in totals] for k in (1, 2))
    assert nds[0] > 2 * nds[1] and nsl[0] > 1.5 * nsl[1] and len(pairs) >= 20
    line = verdict_of(lines, "IG is the map most resistant")
    assert line.verdict == "does not hold" and f"{nds[0] - nds[1]:+.2f}" in line.released


def test_certificates_again(lines):
    """More than half of Int's images are certified at three times the radius that half of Adv's reach."""
    rows = [r for r in rows_of("certificates-mnist-small-released") if (r["kind"], r["form"]) == ("CROWN", "2-class")]
    right = {r["method"]: sorted(radius for radius in r["radii"] if radius is not None) for r in rows}
    half = right["Adv"][len(right["Adv"]) // 2]
    for method in ("Int", "Int-Adv"):
        assert sum(radius > 2.5 * half for radius in right[method]) > 0.5 * len(right[method])
    assert verdict_of(lines, "Constraining the discrepancy").verdict == "holds"
