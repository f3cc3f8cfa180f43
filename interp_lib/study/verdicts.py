"""Decide the paper's claims, each by the strongest evidence that the records hold: one line a claim."""

from collections.abc import Sequence

from ..paper import STATEMENTS, UNFORESEEN_STATEMENTS
from .claims_robustness import Finding
from .evidence import EVIDENCE, VERDICTS, Evidence, Line, decided
from .records import Record
from .verdicts_on_accuracy import (
    AS_PRINTED,
    cost,
    figure_a1,
    ig_weight,
    matched_radius,
    no_masking,
    strongest,
    unforeseen_rivals,
)
from .verdicts_on_maps import (
    adversarial_maps,
    certificate,
    detection,
    insufficient_maps,
    integrated_gradients,
    proposition,
    representation,
    stable_maps,
    table1,
)

OF_MAPS = (
    proposition,
    certificate,
    table1,
    representation,
    integrated_gradients,
    stable_maps,
    adversarial_maps,
    insufficient_maps,
    detection,
)

OF_ACCURACY = (no_masking, matched_radius, ig_weight, unforeseen_rivals, figure_a1, cost)

OF_OURS = EVIDENCE[1:]  # the networks that we trained have not met APGD


def lines(results: Sequence[Record]) -> list[Line]:
    """Return every claim with its evidence: single claims, then the statements of section 5; what holds first.

    A claim whose records are missing is left out.

    Args:
        results: all records, see `records.read_all`.
    """
    evidence = Evidence(results)
    made = [line for make in (*OF_MAPS, *OF_ACCURACY) if (line := make(evidence))]
    by_verdict = lambda line: VERDICTS.index(line.verdict)
    return sorted(made, key=by_verdict) + sorted(section5(evidence), key=by_verdict)


def section5(evidence: Evidence) -> list[Line]:
    """Return the statements of section 5 about which method is more accurate than which, and Table 5's."""
    result = []
    groups = [(network, statements, EVIDENCE, OF_OURS) for network, statements in STATEMENTS.items()]
    for network, statements, *kinds in [*groups, ("CIFAR-10 Small", UNFORESEEN_STATEMENTS, AS_PRINTED, AS_PRINTED)]:
        found, own = (
            strongest(evidence, network, statements, *pair) for pair in zip(kinds, ("released", "ours"), strict=True)
        )
        unforeseen, main = statements is UNFORESEEN_STATEMENTS, network in ("MNIST Small", "CIFAR-10 WResnet")
        where = "Table 5" if unforeseen else "Section 5" if main else "Tables A1, A2"
        chapter = "08_unforeseen_attacks" if unforeseen else "24_orderings" if main else "15_appendix_e"
        for statement in statements:
            parts, of_ours = ([f for f in some if f.statement is statement] for some in (found, own))
            if parts and not (unforeseen and statement.better == "Adv"):  # that one is `unforeseen_rivals`
                text, said = ("; ".join(map(_said, some)) for some in (parts, of_ours))
                verdict = decided(finding.verdict for finding in parts)
                result.append(Line(f"{network}: {statement.text}", where, text, said, verdict, chapter))
    return result


def _said(finding: Finding) -> str:
    difference = f"{finding.difference:+.3f} ± {finding.error:.3f}".replace("-", "−")
    images = f", n = {finding.images:,}"
    if finding.verdict == "none left":
        return f"{finding.level}: none left{images}"
    if finding.verdict == "not trained":
        return f"{finding.level}: {finding}"
    return f"{finding.level}: {finding.verdict}, {difference}{images}"
