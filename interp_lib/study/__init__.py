"""The study of the paper: measurements on its networks, stored as records and compared with the printed values."""

from ..faces import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "accuracy": "pgd_accuracy proportion random_start_accuracy",
        "agreement": "agreement_rows rank_correlations",
        "certificates": "certificate_rows certified largest_gain radii refuted",
        "claims_table1": "cell claims printed_claims tally with_verdicts",
        "detection": "detection_rows",
        "faithfulness": "area curve faithfulness_rows",
        "gamma_and_radius": "choose front_points rows_of_small",
        "masking": "masking_rows",
        "nds_nsl": "difference image_scores",
        "one_image": "AttackedImage attack_image",
        "rank_correlation": "aai_rows",
        "report": "as_csv as_text",
        "restarts": "restart_rows",
        "sanity": "randomised sanity_rows",
        "strong": "strong_rows",
        "sweep": "find_networks",
        "transfer": "transfer_rows",
        "unforeseen": "unforeseen_rows",
    },
)
