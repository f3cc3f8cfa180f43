"""`recompute`: a chapter shows the committed records, or the same measurements made again."""

import json

import pytest
from conftest import ROOT

from interp_lib.pages import parameters, recompute
from interp_lib.pages.chapters import ChapterError, parse_parameter, records_for
from interp_lib.study import records


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A project with two committed records, and measurements that write what the test says."""
    monkeypatch.setattr(recompute, "project_root", lambda: tmp_path)
    monkeypatch.setattr(recompute, "shipped", lambda name: tmp_path / name)
    checkout = Checkout(tmp_path)
    checkout.put("results", "pgd-mnist-small-released", 0.5, attack="pgd")
    checkout.put("results", "aai-mnist-small-released", 0.6, attack="aai")

    def run(command, root, name, folder):
        checkout.commands.append(command[1:])
        if checkout.fails:
            return 1, "a warning\nerror: no MNIST in the folder\n"
        assert root == tmp_path and command[-3:] == [name, "--results-dir", str(folder)]
        for family, value, settings in checkout.measured:
            checkout.put(folder.relative_to(tmp_path), family, value, **settings)
        return 0, ""

    monkeypatch.setattr(recompute, "run_watched", run)
    return checkout


class Checkout:
    def __init__(self, root):
        self.root, self.commands, self.fails, self.measured = root, [], False, []

    def put(self, folder, family, value, *, data="original", **settings):
        settings = {"measurement": "of the test", "dataset": "mnist", "title": data, "data": data, **settings}
        return records.write(records.Record(family, settings, [{"value": value}]), self.root / folder)


def values(found):
    return {record.family.split("-")[0]: record.rows[0]["value"] for record in found}


def test_without_recompute_nothing_is_measured(checkout):
    assert values(records_for(False, "table3")) == {"pgd": 0.5, "aai": 0.6}
    assert checkout.commands == []


def test_records_of_other_schedules_come_where_they_are_asked_for(checkout):
    checkout.put("results/paper", "pgd-mnist-small-ours", 0.9)
    values = sorted(record.rows[0]["value"] for record in records_for(False, all_schedules=True))
    assert values == [0.5, 0.6, 0.9] and len(records_for(False)) == 2


def test_with_recompute_the_new_record_takes_the_place_of_its_own(checkout):
    checkout.measured = [("pgd-mnist-small-released", 0.7, {"attack": "pgd"})]
    assert values(records_for(True, "table3", "fgsm")) == {"pgd": 0.7, "aai": 0.6}
    folder = str(checkout.root / "_build/recomputed")
    command = ["-m", "interp_lib", "measure"]
    assert checkout.commands == [[*command, table, "--results-dir", folder] for table in ("table3", "fgsm")]
    assert values(records_for(False)) == {"pgd": 0.5, "aai": 0.6}, "committed records are left alone"


def test_records_of_one_family_with_other_settings_stay(checkout):
    checkout.put("results", "aai-mnist-small-released", 0.9, attack="other")
    checkout.measured = [("aai-mnist-small-released", 0.7, {"attack": "aai"})]
    assert sorted(record.rows[0]["value"] for record in records_for(True, "table2")) == [0.5, 0.7, 0.9]


def test_beside_another_copy_of_the_data_committed_records_go(checkout):
    checkout.measured = [("pgd-mnist-small-released", 0.7, {"attack": "pgd", "data": "JPEG copy"})]
    assert values(records_for(True, "table3")) == {"pgd": 0.7}


def test_a_record_that_names_no_copy_stays(checkout):
    settings = {"measurement": "gradients", "dataset": "mnist"}
    records.write(records.Record("gradients-mnist-small", settings, [{"value": 0.1}]), checkout.root / "results")
    checkout.measured = [("pgd-mnist-small-released", 0.7, {"attack": "pgd", "data": "JPEG copy"})]
    assert values(records_for(True, "table3")) == {"pgd": 0.7, "gradients": 0.1}


def test_a_measurement_that_fails_says_why(checkout):
    checkout.fails = True
    with pytest.raises(ChapterError, match="recompute=true .* `measure table3` said: no MNIST in the folder"):
        records_for(True, "table3")


def test_without_data_and_networks_the_message_says_what_to_set(monkeypatch, tmp_path):
    for variable in ("INTERP_DATA", "INTERP_RELEASED"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(recompute, "project_root", lambda: tmp_path)
    with pytest.raises(ChapterError, match="INTERP_RELEASED"):
        records_for(True, "table3")


@pytest.mark.parametrize(
    "text, value", [("true", True), ("True", True), ("false", False), ("yes", True), ("no", False)]
)
def test_true_and_false_are_booleans(text, value):
    assert parameters.read(*parse_parameter(f"recompute={text}")) is value


@pytest.mark.parametrize("path", sorted((ROOT / "book").glob("[01]*.ipynb")), ids=lambda path: path.stem)
def test_chapters_that_show_records_can_recompute(path):
    code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in code]
    (parameters,) = [s for s, c in zip(sources, code, strict=True) if "parameters" in c["metadata"].get("tags", [])]
    asks = any("records_for(recompute" in "".join(source.split()) for source in sources)
    assert asks == ("recompute = False" in parameters)
