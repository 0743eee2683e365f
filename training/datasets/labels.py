"""What the labels of the data sets mean in the vocabulary's terms."""

from collections.abc import Iterable

from models.vocabulary import EQUIVALENT, by_scp

# Diagnostic classes of the SCP statements (superclass: subclass: codes), after scp_statements.csv
# of PTB-XL 1.0.3 (Wagner et al. 2020, Scientific Data 7:154, CC BY 4.0).
_DIAGNOSTIC: dict[str, dict[str, tuple[str, ...]]] = {
    "NORM": {"NORM": ("NORM",)},
    "MI": {
        "IMI": ("IMI", "ILMI", "IPLMI", "IPMI", "INJIN", "INJIL"),
        "AMI": ("ASMI", "AMI", "ALMI", "INJAS", "INJAL", "INJLA"),
        "LMI": ("LMI",),
        "PMI": ("PMI",),
    },
    "STTC": {
        "STTC": ("NDT", "DIG", "LNGQT", "ANEUR", "EL"),
        "NST_": ("NST_",),
        "ISC_": ("ISC_",),
        "ISCA": ("ISCAL", "ISCAS", "ISCLA", "ISCAN"),
        "ISCI": ("ISCIN", "ISCIL"),
    },
    "CD": {
        "LAFB/LPFB": ("LAFB", "LPFB"),
        "IRBBB": ("IRBBB",),
        "_AVB": ("1AVB", "2AVB", "3AVB"),
        "IVCD": ("IVCD",),
        "CRBBB": ("CRBBB",),
        "CLBBB": ("CLBBB",),
        "ILBBB": ("ILBBB",),
        "WPW": ("WPW",),
    },
    "HYP": {
        "LVH": ("LVH",),
        "LAO/LAE": ("LAO/LAE",),
        "RVH": ("RVH",),
        "RAO/RAE": ("RAO/RAE",),
        "SEHYP": ("SEHYP",),
    },
}
_CLASSES = {
    code: (f"SUPER_{superclass}", f"SUB_{subclass}")
    for superclass, subclasses in _DIAGNOSTIC.items()
    for subclass, codes in subclasses.items()
    for code in codes
}
DIAGNOSTIC_COLUMNS = (
    *(f"SUPER_{superclass}" for superclass in _DIAGNOSTIC),
    *(f"SUB_{subclass}" for subclasses in _DIAGNOSTIC.values() for subclass in subclasses),
)
"""The 5 superclasses and 23 subclasses of PTB-XL's diagnostic statements."""

# What a Challenge 2017 reference says: N is normal rhythm, A atrial fibrillation, O any other
# rhythm (so at least not AF), ~ too noisy to say anything.
_CINC_POSITIVE: dict[str, tuple[str, ...]] = {"N": ("NSR",), "A": ("AF",)}
_CINC_NEGATIVE: dict[str, tuple[str, ...]] = {
    "N": ("AF", "AFL", "PVC", "PAC", "SVARR", "BIGU", "PR"),
    "A": ("NSR",),
    "O": ("AF",),
}
CINC_CLASSES = ("N", "A", "O", "~")
_CINC_OWN = tuple(f"CINC_{c}" for c in CINC_CLASSES)
CINC_COLUMNS = ("NSR", *_CINC_NEGATIVE["N"], *_CINC_OWN)
"""What Challenge 2017 speaks of, and its own four classes."""


def scp_labels(codes: Iterable[str]) -> frozenset[str]:
    """Columns that hold for a PTB-XL record: its statements, their superclasses and subclasses.

    A diagnostic statement counts whatever its likelihood (Wagner et al. 2020, and their
    ``example_physionet.py``).

    Raises:
        UnknownDiagnosis: a code is none of PTB-XL's 71 statements.
    """
    codes = tuple(codes)
    return frozenset(by_scp(code).abbreviation for code in codes).union(
        *(_CLASSES.get(code, ()) for code in codes)
    )


def cinc_labels(reference: str) -> tuple[frozenset[str], frozenset[str]]:
    """Positive and known columns of a Challenge 2017 record with ``reference`` N, A, O or ~."""
    own = f"CINC_{reference}"
    positive = frozenset((*_CINC_POSITIVE.get(reference, ()), own))
    return positive, positive.union(_CINC_NEGATIVE.get(reference, ()), _CINC_OWN)


def with_equivalents(names: frozenset[str]) -> frozenset[str]:
    """``names`` and all that stand for the same finding, as the Challenge 2021 merges them."""
    return names.union(*(group for group in EQUIVALENT if group & names))
