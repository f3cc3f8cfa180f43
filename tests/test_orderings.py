"""Statements of section 5 on cells made here, and on the printed values themselves."""

import math

import pytest

from interp_lib import compare, orderings, records
from interp_lib.compare import Cell
from interp_lib.orderings import findings, gamma_rows


def cells(values, source="released", spread=None):
    """Cells of Table 3, MNIST, from {(method, level): accuracy}."""
    return [
        Cell("3", "MNIST", "Small", method, "ATA", "eps", level, f"{value:.3f}", spread=spread, **{source: value})
        for (method, level), value in values.items()
    ]


def only(found, text, level):
    (one,) = [f for f in found if f.statement.text.startswith(text) and f.level == level]
    return one


@pytest.mark.parametrize(
    "better, worse, verdict", [(0.9, 0.5, "yes"), (0.5, 0.9, "no"), (0.52, 0.5, "open"), (0.5, 0.52, "open")]
)
def test_a_verdict_needs_two_standard_errors(better, worse, verdict):
    found = only(findings(cells({("Int", "0.35"): better, ("Adv", "0.35"): worse})), "Int is above Adv", "0.35")
    assert found.verdict == verdict and found.difference == pytest.approx(better - worse)
    variance = (better * (1 - better) + worse * (1 - worse)) / 200
    assert found.error == pytest.approx(math.sqrt(variance))


def test_equal_accuracies_are_open_also_without_an_error():
    found = only(findings(cells({("Int", "0.4"): 0.0, ("Adv", "0.4"): 0.0})), "Int is above Adv", "0.4")
    assert (found.error, found.verdict) == (0, "open") and str(found) == "open, +0.000 ± 0.000"


def test_the_rival_is_the_best_of_the_others():
    values = {("Int", "0.4"): 0.2, ("Adv", "0.4"): 0.0, ("TRADES", "0.4"): 0.6}
    found = only(findings(cells(values)), "Int is above TRADES", "0.4")
    assert (found.rival, found.verdict, str(found)[:11]) == ("TRADES", "no", "no, −0.400 ")


def test_the_spread_between_seeds_counts_for_ours_alone():
    values = {("Int", "0.35"): 0.5, ("Adv", "0.35"): 0.4}
    ours = only(findings(cells(values, "ours", spread=0.1), source="ours"), "Int is above Adv", "0.35")
    assert ours.error == pytest.approx(math.sqrt((0.25 + 0.24) / 200 + 0.02))
    (cell, _) = cells(values, spread=0.1)
    assert orderings.uncertainty(cell) == pytest.approx(math.sqrt(0.25 / 200))


def paired(source, spread=None, **outcomes):
    """Int and Adv at 0.35, from what each has right of the same images."""
    return [
        Cell("3", "MNIST", "Small", method, "ATA", "eps", "0.35", "0.5", spread=spread, outcomes={source: right},
             **{source: sum(right) / len(right)})
        for method, right in outcomes.items()
    ]  # fmt: skip


def test_differences_on_the_same_images_have_a_paired_error():
    """Eight images, two on which Int alone is right, none on which Adv alone is: d is 1/4, its variance 3/16."""
    one, other = (1, 1, 1, 1, 0, 0, 0, 0), (1, 1, 0, 0, 0, 0, 0, 0)
    (found,) = findings(paired("released", Int=one, Adv=other), images=8)
    assert found.paired and (found.difference, found.error) == pytest.approx((0.25, math.sqrt(3 / 16 / 8)))
    assert found.verdict == "open" and findings(paired("released", Int=one * 4, Adv=other * 4))[0].verdict == "yes"
    (ours,) = findings(paired("ours", 0.1, Int=one, Adv=other), source="ours")
    assert ours.error == pytest.approx(math.sqrt(3 / 16 / 8 + 0.02))
    (apart,) = findings(cells({("Int", "0.35"): 0.5, ("Adv", "0.35"): 0.25}), images=8)
    assert not apart.paired and apart.error == pytest.approx(math.sqrt((0.25 + 0.1875) / 8)) and apart.error > 0.15


def test_networks_that_saw_other_images_have_no_paired_error():
    (found,) = findings(paired("released", Int=(1, 0, 1, 0), Adv=(1, 0)), images=4)
    assert not found.paired


def test_perturbation_sizes_are_those_of_the_statements():
    assert orderings.perturbation_sizes("mnist", "small") == [0, 0.2, 0.3, 0.35, 0.4]
    assert orderings.perturbation_sizes("cifar10", "wresnet") == [0, 8 / 255, 9 / 255, 10 / 255]
    assert orderings.perturbation_sizes("cifar10", "small") == [0, 8 / 255]


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
    row = lambda printed, **values: Cell("A1", "CIFAR-10", "Small", printed, "ATA", "eps", "8/255", "0.2", **values)
    table = [row("IG-Norm", released=0.0, corrected=0.5), row("Int", released=0.5, corrected=0.1)]
    found = only(findings(table, network="CIFAR-10 Small"), "Int-1-class fails", "8/255")
    assert (found.accuracy, found.rival, found.rival_accuracy) == (0.5, "Int-1-class", 0.1)


@pytest.mark.parametrize("network", orderings.STATEMENTS)
def test_every_statement_is_about_printed_rows(network):
    found = findings(compare.compare([]), network=network, source="printed")
    levels = [(s, level) for s in orderings.STATEMENTS[network] for level in s.levels]
    assert [(f.statement, f.level) for f in found] == levels


@pytest.mark.parametrize("network", ["MNIST Small", "CIFAR-10 WResnet"])
def test_statements_of_section_5_lean_as_printed(network):
    assert all(f.difference > 0 for f in findings(compare.compare([]), network=network, source="printed"))


# Appendix C


def record(rows, **settings):
    known = {"measurement": "pgd", "dataset": "mnist", "model": "small", "networks": "ours", "title": "MNIST"}
    return records.Record("made-here", known | settings, rows)


def row(correct, gamma=0.01, method="Int", seed=0, eps=0.3, steps=200, schedule="quick"):
    return {"method": method, "seed": seed, "schedule": schedule, "gamma": gamma, "eps": eps, "steps": steps,
            "correct": correct, "n": 200, "accuracy": correct / 200, "se": 0.0}  # fmt: skip


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
