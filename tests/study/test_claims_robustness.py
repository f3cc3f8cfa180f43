"""Statements of section 5 on cells made here, and on the printed values themselves."""

import math
from statistics import fmean, stdev

import pytest
from conftest import ROOT
from scipy import stats

from interp_lib import paper
from interp_lib.study import claims_robustness, compare, comparisons, evaluation, intervals, records
from interp_lib.study.claims_robustness import findings, gamma_rows
from interp_lib.study.compare import Cell
from interp_lib.study.comparisons import Measured


def cells(values, source="released", clean=0.95, **more):
    """Cells of Table 3, MNIST, from {(method, level): accuracy}, each method with a clean accuracy."""
    values = {(method, "0"): clean for method, _ in values} | values
    return [
        table3_cell(method, level, f"{value:.3f}", **{source: value}, **more)
        for (method, level), value in values.items()
    ]


def only(found, text, level):
    (one,) = [f for f in found if f.statement.text.startswith(text) and f.level == level]
    return one


@pytest.mark.parametrize(
    "better, worse, verdict",
    [(0.9, 0.5, "yes"), (0.5, 0.9, "no"), (0.55, 0.5, "not settled"), (0.5, 0.55, "not settled")],
)
def test_a_verdict_needs_an_unlikely_difference(better, worse, verdict):
    found = only(findings(cells({("Int", "0.35"): better, ("Adv", "0.35"): worse})), "Int is above Adv", "0.35")
    assert found.verdict == verdict and found.difference == pytest.approx(better - worse)
    table = [[200 * better, 200 * (1 - better)], [200 * worse, 200 * (1 - worse)]]
    assert found.p == pytest.approx(stats.fisher_exact([[round(v) for v in row] for row in table]).pvalue)
    variance = (better * (1 - better) + worse * (1 - worse)) / 200
    assert found.error == pytest.approx(math.sqrt(variance), rel=0.01)


def test_none_left_on_either_side_is_said_with_what_may_be_left():
    values = {("Int", "0.4"): 0.0, ("Adv", "0.4"): 0.0}
    found = only(findings(cells(values)), "Int is above Adv", "0.4")
    assert (found.verdict, found.p) == ("none left", 1) and found.at_most == pytest.approx(1 - 0.025 ** (1 / 200))
    assert str(found) == "none left, at most 0.02"
    (more,) = findings(cells({key: 0.0 for key in [("Int", "0.35"), ("Adv", "0.35")]}), images=2000)
    assert str(more) == "none left, at most 0.002"
    one = only(findings(cells(values | {("Adv", "0.4"): 0.005})), "Int is above Adv", "0.4")
    assert one.verdict == "not settled"


def test_a_method_must_be_above_every_rival():
    values = {("Int", "0.4"): 0.2, ("Adv", "0.4"): 0.0, ("IG-Norm-Sum", "0.4"): 0.15}
    found = only(findings(cells(values)), "Int is above TRADES", "0.4")
    assert (found.rival, found.verdict) == ("IG-Norm-Sum", "not settled")
    assert found.p == pytest.approx(intervals.fisher(40, 200, 30, 200)) and found.p > 0.05
    values[("IG-Norm-Sum", "0.4")] = 0.05
    found = only(findings(cells(values)), "Int is above TRADES", "0.4")
    assert (found.verdict, found.p) == ("yes", pytest.approx(intervals.fisher(40, 200, 10, 200)))


def test_the_best_of_several_rivals_pays_for_having_been_chosen():
    """Two rivals, one above Int by a difference of p = 0.04: as the better of two, p is 0.08."""
    values = {("Int", "0.4"): 0.5, ("Adv", "0.4"): 0.2, ("TRADES", "0.4"): 0.605}
    (alone,) = [f for f in findings(cells({k: values[k] for k in values if k[0] != "Adv"})) if f.level == "0.4"]
    chosen = only(findings(cells(values)), "Int is above TRADES", "0.4")
    assert (chosen.rival, chosen.verdict) == ("TRADES", "not settled")
    assert chosen.p == pytest.approx(2 * alone.p) and alone.p < 0.05 < chosen.p


def test_several_verdicts_are_corrected_together():
    values = {("Int", "0.35"): 0.6, ("Int", "0.4"): 0.6, ("Adv", "0.35"): 0.49, ("Adv", "0.4"): 0.2}
    found = [f for f in findings(cells(values)) if f.statement.worse == ("Adv",)]
    everything = findings(cells(values))
    assert [f.adjusted for f in everything] == pytest.approx(intervals.holm([f.p for f in everything]))
    assert found[0].p < 0.05 and found[0].adjusted == pytest.approx(found[0].p)  # the largest of three
    more = cells(values | {("Int", "0.3"): 0.5, ("Int-1-class", "0.3"): 0.5})
    found = only(findings(more), "Int is above Adv", "0.35")
    assert found.adjusted == pytest.approx(2 * found.p)


def test_a_network_that_never_trained_confirms_nothing():
    values = {("Int", "0.3"): 0.8, ("IG-Norm", "0.3"): 0.0}
    assert only(findings(cells(values)), "IG-Norm fails", "0.3").verdict == "yes"
    chance = cells(values | {("IG-Norm", "0"): 0.11})
    found = only(findings(chance), "IG-Norm fails", "0.3")
    assert (found.verdict, str(found)) == ("not trained", "not trained, IG-Norm")
    at_the_floor = cells(values | {("IG-Norm", "0"): claims_robustness.TRAINED})
    assert only(findings(at_the_floor), "IG-Norm fails", "0.3").verdict == "not trained"
    better = cells(values | {("Int", "0"): 0.1})
    assert only(findings(better), "IG-Norm fails", "0.3").untrained == ("Int",)


def test_the_floor_is_between_chance_and_the_worst_network_that_learnt():
    """Ten classes; the lowest clean accuracy of a released network is .42 (R-ImageNet's is not part of this)."""
    clean = [c.printed for c in compare.compare([]) if c.table in claims_robustness.TABLES and c.level == "0"]
    assert 2 * 0.1 < claims_robustness.TRAINED < min(clean)


def test_untrained_networks_do_not_count_as_comparisons():
    values = {("Int", "0.3"): 0.6, ("IG-Norm", "0.3"): 0.0, ("Int-1-class", "0.3"): 0.5, ("IG-Norm", "0"): 0.1}
    found = only(findings(cells(values)), "Int-1-class fails", "0.3")
    assert found.adjusted == found.p


def test_a_rival_without_a_value_leaves_a_lead_not_measured():
    printed = [Cell("3", "MNIST", "Small", "TRADES", "ATA", "eps", level, "0.9") for level in ("0", "0.4")]
    values = {("Int", "0.4"): 0.9, ("Adv", "0.4"): 0.1}
    found = only(findings(cells(values) + printed), "Int is above TRADES", "0.4")
    assert (found.verdict, found.missing) == ("not measured", ("TRADES",))
    values = {("Int", "0.4"): 0.1, ("Adv", "0.4"): 0.9}
    assert only(findings(cells(values) + printed), "Int is above TRADES", "0.4").verdict == "no"
    assert findings([c for c in cells(values) if c.level != "0"]) == []  # without a clean accuracy, none


def table3_cell(method, level, printed, **measured):
    return Cell("3", "MNIST", "Small", method, "ATA", "eps", level, printed, **measured)


def seeded(method, values, **more):
    """A method trained here with several seeds."""
    mean, spread = fmean(values), stdev(values)
    return [
        table3_cell(
            method,
            level,
            "0.5",
            ours=v,
            spread=s,
            n_ours=200 * len(values),
            **more,
        )
        for level, v, s in (("0", 0.95, 0.0), ("0.35", mean, spread))
    ]


def test_three_seeds_are_tested_with_their_degrees_of_freedom():
    """With images that leave no error, Welch's test of three networks against three; and with both."""
    one, other = (0.50, 0.52, 0.57), (0.30, 0.36, 0.42)
    outcomes = {"ours": (1.0,) * 200}, {"ours": (0.83,) * 200}
    pair = [
        cells[1] for cells in (seeded(m, v, outcomes=o) for m, v, o in zip("AB", (one, other), outcomes, strict=True))
    ]
    compared = claims_robustness.compared(*(Measured.of_cell(cell, "ours") for cell in pair))
    expected = stats.ttest_ind(one, other, equal_var=False)
    assert compared.paired and compared.p == pytest.approx(expected.pvalue)
    assert compared.error == pytest.approx(math.sqrt((stats.tvar(one) + stats.tvar(other)) / 3))
    unpaired = claims_robustness.compared(*(Measured.of_cell(seeded("A", v)[1], "ours") for v in (one, other)))
    image = sum(fmean(v) * (1 - fmean(v)) for v in (one, other)) / 200
    assert not unpaired.paired and unpaired.p == compared.p  # what the images add has many degrees of freedom
    assert unpaired.error == pytest.approx(math.sqrt(compared.error**2 + image), rel=0.01)


def test_one_seed_of_three_that_leads_settles_nothing():
    """Int-Adv beyond the training radius: one network holds .745, two nothing; two errors of the images are not it."""
    found = findings(seeded("Int", (0.745, 0.0, 0.0)) + seeded("Adv", (0.01, 0.035, 0.01)), source="ours")
    assert [f.verdict for f in found] == ["not settled"] and found[0].difference > 0.2


def test_the_spread_between_seeds_counts_for_ours_alone():
    (_, cell) = seeded("Int", (0.4, 0.5, 0.6))
    wilson = math.sqrt(0.25 / 200 + 1 / 400**2) / (1 + 1 / 200)
    assert comparisons.uncertainty(cell, "ours") == pytest.approx(math.sqrt(wilson**2 + 0.01 / 3))
    assert (Measured.of_cell(cell, "ours").seeds, Measured.of_cell(cell, "ours").spread) == (3, pytest.approx(0.1))
    (clean, cell) = cells({("Int", "0.35"): 0.5}, spread=0.1)
    assert comparisons.uncertainty(cell) == pytest.approx(wilson)


def test_an_accuracy_of_none_has_an_error():
    """Wilson's interval of one standard error around 0 of n ends at 1 / (n + 1)."""
    (_, cell) = cells({("Int", "0.4"): 0.0})
    assert comparisons.uncertainty(cell) == pytest.approx(1 / 201 / 2)


def paired(source, **outcomes):
    """Int and Adv at 0.35, from what each has right of the same images."""
    clean = [table3_cell(method, "0", "0.95", **{source: 0.95}) for method in outcomes]
    return clean + [
        table3_cell(
            method,
            "0.35",
            "0.5",
            outcomes={source: right},
            **{source: sum(right) / len(right)},
        )
        for method, right in outcomes.items()
    ]


def test_differences_on_the_same_images_are_tested_by_mcnemar():
    """Eight images, two on which Int alone is right, none on which Adv alone is: d is 1/4, its variance 3/16."""
    one, other = (1, 1, 1, 1, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0, 0, 0)
    (found,) = findings(paired("released", Int=one, Adv=other), images=8)
    assert found.paired and (found.difference, found.error) == pytest.approx((0.25, math.sqrt(3 / 16 / 8)))
    assert found.p == 0.5 and found.verdict == "not settled"
    (found,) = findings(paired("released", Int=one * 4, Adv=other * 4), images=32)
    assert found.p == pytest.approx(2 / 2**8) and found.verdict == "yes"
    assert found.p < intervals.fisher(16, 32, 8, 32)


def test_rows_of_a_record_are_measured_as_a_cell_is():
    right = [(1, 1, 1, 0), (1, 1, 0, 0)]
    rows = [{"accuracy": fmean(r), "n": 4, "right": records.outcome_digits(r)} for r in right]
    value = Measured.of_rows(rows)
    assert value == Measured(0.625, 4, 2, pytest.approx(stdev((0.75, 0.5))), (1, 1, 0.5, 0))
    assert Measured.of_rows(rows[:1]) == Measured(0.75, 4, 1, 0.0, (1, 1, 1, 0))
    assert Measured.of_rows([rows[0], {"accuracy": 0.5, "n": 4}]).outcomes == ()


def test_rows_are_compared_image_by_image():
    right = [(1,) * 10 + (0,) * 3 + (1,) * 7, (0,) * 10 + (1,) * 3 + (1,) * 7]
    one, other = ([{"accuracy": fmean(r), "n": 20, "right": records.outcome_digits(r)}] for r in right)
    found = comparisons.compared_rows(one, other)
    assert found.difference == pytest.approx(7 / 20) and found.paired
    assert found.p == pytest.approx(2 * (1 + 13 + 78 + 286) / 2**13)


def test_networks_that_saw_other_images_are_not_paired():
    (found,) = findings(paired("released", Int=(1, 0, 1, 0), Adv=(1, 0)), images=4)
    assert not found.paired


def test_perturbation_sizes_are_those_of_the_statements():
    assert evaluation.perturbation_sizes("mnist", "small") == [0, 0.2, 0.3, 0.35, 0.4]
    assert evaluation.perturbation_sizes("cifar10", "wresnet") == [0, 8 / 255, 9 / 255, 10 / 255]
    assert evaluation.perturbation_sizes("cifar10", "small") == [0, 8 / 255]


def test_what_was_not_measured_has_no_finding():
    assert findings(cells({("Int", "0.35"): 0.5})) == []
    assert findings(cells({("Int", "0.35"): 0.5, ("Adv", "0.35"): 0.4}), source="ours") == []
    other_table = [Cell("4", *c[1:]) for c in [("3", "MNIST", "Small", "Int", "ATA", "eps", "0.35", "0.5", 0.5)]]
    assert findings(other_table) == []


def test_unknown_sources_and_networks_are_refused():
    with pytest.raises(ValueError, match="source is one of .*'hearsay'"):
        findings([], source="hearsay")
    with pytest.raises(ValueError, match="network one of .*'digits'"):
        findings([], network="digits")


def test_an_exchanged_row_speaks_for_its_owner():
    """Table A1, CIFAR-10: what is printed as IG-Norm is Int, and as Int, Int-1-class."""
    row = lambda printed, level, **v: Cell("A1", "CIFAR-10", "Small", printed, "ATA", "eps", level, "0.2", **v)
    table = [row("IG-Norm", "8/255", released=0.0, corrected=0.5), row("Int", "8/255", released=0.5, corrected=0.1)]
    table += [row(printed, "0", released=0.6, corrected=0.6) for printed in ("IG-Norm", "Int")]
    found = only(findings(table, network="CIFAR-10 Small"), "Int-1-class fails", "8/255")
    assert (found.accuracy, found.rival, found.rival_accuracy) == (0.5, "Int-1-class", 0.1)


@pytest.mark.parametrize("network", paper.STATEMENTS)
def test_every_statement_is_about_printed_rows(network):
    found = findings(compare.compare([]), network=network, source="printed")
    levels = [(s, level) for s in paper.STATEMENTS[network] for level in s.levels]
    assert [(f.statement, f.level) for f in found] == levels


@pytest.mark.parametrize("network", ["MNIST Small", "CIFAR-10 WResnet"])
def test_statements_of_section_5_lean_as_printed(network):
    assert all(f.difference > 0 for f in findings(compare.compare([]), network=network, source="printed"))


YES, NO, OPEN, NONE = "yes", "no", "not settled", "none left"


@pytest.mark.parametrize(
    "kind, network, source, images, verdicts",
    [
        ("pgd", "MNIST Small", "released", 200, [YES] * 4 + [OPEN] + [YES] * 4),
        ("pgd", "MNIST Small", "ours", 200, [OPEN] * 5 + [YES] * 4),
        ("pgd", "CIFAR-10 WResnet", "released", 200, [OPEN, YES, YES, OPEN, OPEN, YES]),
        ("pgd", "CIFAR-10 WResnet", "ours", 200, [OPEN] * 5 + [YES]),
        ("pgd", "CIFAR-10 Small", "released", 200, [OPEN, OPEN, OPEN, YES]),
        ("many", "MNIST Small", "released", 2000, [YES] * 4 + [OPEN] + [YES] * 4),
        ("many", "CIFAR-10 Small", "released", 2000, [NO, YES, YES, YES]),
        ("starts", "MNIST Small", "released", 200, [NONE] * 3 + [NO, NONE] + [YES] * 4),
    ],
)
def test_what_the_records_say_of_section_5(kind, network, source, images, verdicts):
    cells = compare.compare(records.read_all(ROOT / "results"), kind)
    assert [f.verdict for f in findings(cells, network=network, source=source, images=images)] == verdicts


# Appendix C


def record(rows, **settings):
    known = {"measurement": "pgd", "dataset": "mnist", "model": "small", "networks": "ours", "title": "MNIST"}
    return records.Record("made-here", known | settings, rows)


def row(correct, gamma=0.01, method="Int", seed=0, eps=0.3, steps=200, schedule="quick"):
    return {
        "method": method,
        "seed": seed,
        "schedule": schedule,
        "gamma": gamma,
        "eps": eps,
        "steps": steps,
        "correct": correct,
        "n": 200,
        "accuracy": correct / 200,
        "se": 0.0,
    }


def test_gammas_in_order_with_normal_training_as_zero():
    rows = [row(100, 0.03), row(80), row(90, seed=1), row(2, method="Normal"), row(1, method="Adv"), row(0, steps=10)]
    found = gamma_rows([record(rows), record([row(7, 0.1)], networks="released"), record([row(7, 1)], model="pool")])
    assert [(r["gamma"], r["seeds"]) for r in found] == [(0, 1), (0.01, 2), (0.03, 1)]
    assert [r["accuracy"] for r in found] == pytest.approx([0.01, 0.425, 0.5])
    assert found[1]["se"] == pytest.approx(math.sqrt(0.425 * 0.575 / 200)) and found[1]["n"] == 200
    assert found[1]["spread"] == pytest.approx(0.05 / math.sqrt(2)) and found[0]["spread"] is None


def test_accuracies_of_more_images_are_asked_for_by_name():
    found = [record([row(80)]), record([row(90)], measurement="many")]
    assert [gamma_rows(found, *kind)[0]["accuracy"] for kind in ((), ("many",))] == [0.4, 0.45]


def test_schedules_are_not_mixed_and_the_one_with_several_gammas_is_taken():
    one = [row(150, schedule="paper"), row(3, method="Normal", schedule="paper")]
    several = [row(100), row(120, 0.03)]
    assert {(r["schedule"], r["gamma"]) for r in gamma_rows([record([*one, *several])])} == {
        ("quick", 0.01),
        ("quick", 0.03),
    }
    assert {r["schedule"] for r in gamma_rows([record(one)])} == {"paper"}
    assert {r["schedule"] for r in gamma_rows([record([*one, row(9, 0.1, schedule="paper"), *several])])} == {"paper"}
    assert gamma_rows([]) == []
