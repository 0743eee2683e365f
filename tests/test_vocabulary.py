import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from models import vocabulary
from models.vocabulary import (
    ALL,
    EQUIVALENT,
    UnknownDiagnosis,
    by_scp,
    by_snomed,
    equivalents,
    lookup,
)

# Extended Data Table 1 of the LiteHeart paper, data set by data set.
PAPER = {
    "SMU": """normal ECG=NECG; sinus rhythm=SR; Q wave abnormal=QAb; q wave abnormal=qAb;
        poor R wave progression=PRP; ST elevation=STE; ST depression=STD; T wave abnormal=TAb;
        sinus tachycardia=ST; sinus bradycardia=SB; atrial fibrillation=AF; atrial flutter=AFL;
        premature ventricular contractions=PVC; first-degree atrioventricular block=IAVB;
        bundlebranchblock=BBB; complete right bundle branch block=CRBBB;
        incomplete right bundle branch block=IRBBB; partial right bundle branch block=PRBBB;
        heart enlargement and hypertrophy=HEH; high left ventricular voltage=HLVV;
        paced rhythm=PR; premature atrial contractions=PAC; sinus arrhythmia=SA""",
    "G12EC": """atrial fibrillation=AF; 1st degree av block=IAVB;
        incomplete right bundle branch block=IRBBB; left axis deviation=LAD;
        left bundle branch block=LBBB; low qrs voltages=LQRSV;
        nonspecific intraventricular conduction disorder=NSIVCB; sinus rhythm=NSR;
        premature atrial contraction=PAC; prolonged qt interval=LQT; qwave abnormal=QAb;
        right bundle branch block=RBBB; sinus arrhythmia=SA; sinus bradycardia=SB;
        sinus tachycardia=STach; t wave abnormal=TAb; t wave inversion=TInv;
        ventricular premature beats=VPB""",
    "PTB-XL": """atrial fibrillation=AF; complete right bundle branch block=CRBBB;
        1st degree av block=IAVB; incomplete right bundle branch block=IRBBB;
        left axis deviation=LAD; left anterior fascicular block=LAnFB;
        left bundle branch block=LBBB; nonspecific intraventricular conduction disorder=NSIVCB;
        sinus rhythm=NSR; premature atrial contraction=PAC; pacing rhythm=PR;
        prolonged pr interval=LPR; qwave abnormal=QAb; right axis deviation=RAD;
        sinus arrhythmia=SA; sinus bradycardia=SB; sinus tachycardia=STach;
        t wave abnormal=TAb; t wave inversion=TInv""",
    "Ningbo": """atrial flutter=AFL; bundle branch block=BBB;
        complete left bundle branch block=CLBBB; complete right bundle branch block=CRBBB;
        1st degree av block=IAVB; incomplete right bundle branch block=IRBBB;
        left axis deviation=LAD; left anterior fascicular block=LAnFB; low qrs voltages=LQRSV;
        nonspecific intraventricular conduction disorder=NSIVCB; sinus rhythm=NSR;
        premature atrial contraction=PAC; pacing rhythm=PR; poor R wave Progression=PRWP;
        premature ventricular contractions=PVC; prolonged qt interval=LQT; qwave abnormal=QAb;
        right axis deviation=RAD; sinus arrhythmia=SA; sinus bradycardia=SB;
        sinus tachycardia=STach; t wave abnormal=TAb; t wave inversion=TInv""",
    "Chapman": """atrial fibrillation=AF; atrial flutter=AFL; 1st degree av block=IAVB;
        left axis deviation=LAD; left bundle branch block=LBBB; low qrs voltages=LQRSV;
        nonspecific intraventricular conduction disorder=NSIVCB; sinus rhythm=NSR;
        premature atrial contraction=PAC; qwave abnormal=QAb; right axis deviation=RAD;
        right bundle branch block=RBBB; sinus bradycardia=SB; sinus tachycardia=STach;
        t wave abnormal=TAb; ventricular premature beats=VPB""",
}
ROWS = [
    tuple(part.strip() for part in row.split("="))
    for table in PAPER.values()
    for row in table.split(";")
]

SNOMED = {
    "AF": "164889003",
    "AFL": "164890007",
    "IAVB": "270492004",
    "NSR": "426783006",
    "SB": "426177001",
    "STach": "427084000",
    "SA": "427393009",
    "PAC": "284470004",
    "PVC": "427172004",
    "VPB": "17338001",
    "SVPB": "63593006",
    "RBBB": "59118001",
    "CRBBB": "713427006",
    "LBBB": "164909002",
    "CLBBB": "733534002",
    "3AVB": "27885002",
    "VTach": "164895002",
    "VF": "164896001",
}


def spellings(d: vocabulary.Diagnosis) -> set[str]:
    return {d.abbreviation, d.name, *d.scp, *d.synonyms, *([d.snomed] if d.snomed else [])}


def repeated(items: list[str]) -> list[str]:
    return [item for item, n in Counter(items).items() if n > 1]


def test_no_key_code_or_spelling_belongs_to_two_diagnoses() -> None:
    assert repeated([d.abbreviation for d in ALL]) == []
    assert repeated([code for d in ALL for code in d.scp]) == []
    assert repeated([d.snomed for d in ALL if d.snomed]) == []
    assert repeated([text for d in ALL for text in spellings(d)]) == []


def test_snomed_codes_have_a_valid_check_digit() -> None:
    # Verhoeff's scheme, which SNOMED CT identifiers end in: a mistyped digit cannot pass.
    def dihedral(a: int, b: int) -> int:
        c = (a + b) % 5 if a < 5 else (a - b) % 5
        return c + 5 * ((a < 5) != (b < 5))

    permute = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)

    def remainder(code: str) -> int:
        check = 0
        for place, digit in enumerate(reversed(code)):
            value = int(digit)
            for _ in range(place % 8):
                value = permute[value]
            check = dihedral(check, value)
        return check

    assert remainder("164889003") == 0
    assert remainder("164889004") != 0
    assert [d.snomed for d in ALL if d.snomed and remainder(d.snomed) != 0] == []


@pytest.mark.parametrize(("name", "abbreviation"), sorted(set(ROWS)))
def test_every_class_of_the_paper_resolves_by_name_and_abbreviation(
    name: str, abbreviation: str
) -> None:
    assert lookup(abbreviation) is lookup(name)


def test_the_papers_classes_are_all_there_under_their_own_key() -> None:
    # Only three of SMU's abbreviations give way to the one that the other data sets use.
    renamed = {"SR": "NSR", "PRP": "PRWP", "ST": "STach"}
    keys = {d.abbreviation for d in ALL}
    wanted = {renamed.get(abbreviation, abbreviation) for _, abbreviation in ROWS}
    assert len(wanted) == 35
    assert wanted <= keys


@pytest.mark.parametrize(("abbreviation", "code"), SNOMED.items())
def test_snomed_codes_are_the_challenges(abbreviation: str, code: str) -> None:
    assert by_snomed(code).abbreviation == abbreviation
    assert lookup(code) is lookup(abbreviation)


@pytest.mark.parametrize(
    ("scp", "key"),
    [
        ("SR", "NSR"),
        ("NORM", "NECG"),
        ("AFIB", "AF"),
        ("1AVB", "IAVB"),
        ("CLBBB", "CLBBB"),
        ("IVCD", "NSIVCB"),
        ("LAFB", "LAnFB"),
        ("LVOLT", "LQRSV"),
        ("LNGQT", "LQT"),
        ("PACE", "PR"),
        ("QWAVE", "QAb"),
        ("STACH", "STach"),
        ("STE_", "STE"),
        ("INVT", "TInv"),
        ("AMI", "AMI"),
        ("NDT", "NDT"),
        ("LAO/LAE", "LAO/LAE"),
    ],
)
def test_scp_codes_lead_to_the_canonical_key(scp: str, key: str) -> None:
    assert by_scp(scp).abbreviation == key
    assert lookup(scp) is by_scp(scp)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Normal", "NSR"),
        ("I-AVB", "IAVB"),
        ("A", "AF"),
        ("qAb", "qAb"),
        ("QAb", "QAb"),
        ("af", "AF"),
        ("Atrial Fibrillation", "AF"),
        (" stach ", "STach"),
        ("CHB", "3AVB"),
        ("IIAVB", "2AVB"),
        ("STD", "STD"),
    ],
)
def test_other_spellings(text: str, key: str) -> None:
    assert lookup(text).abbreviation == key


def test_case_that_alone_tells_two_apart_is_not_disregarded() -> None:
    with pytest.raises(UnknownDiagnosis) as error:
        lookup("QAB")
    assert set(error.value.candidates) == {"QAb", "qAb"}


def test_the_unknown_names_its_nearest_matches() -> None:
    with pytest.raises(UnknownDiagnosis, match=r"'atrial fibrilation'; did you mean AF") as error:
        lookup("atrial fibrilation")
    assert error.value.candidates[0] == "AF"
    assert isinstance(error.value, KeyError)
    with pytest.raises(UnknownDiagnosis, match=r"no diagnosis is called '1234567'$"):
        by_snomed("1234567")
    with pytest.raises(UnknownDiagnosis, match="did you mean AF"):
        by_scp("AFIBB")


@pytest.mark.parametrize("empty", ["", " "])
def test_nothing_is_no_diagnosis(empty: str) -> None:
    with pytest.raises(UnknownDiagnosis):
        lookup(empty)


def test_equivalents() -> None:
    assert equivalents("RBBB") == equivalents("CRBBB") == {"RBBB", "CRBBB"}
    assert equivalents("PVC") >= {"PVC", "VPB"}
    assert equivalents("AFIB") == {"AF"}
    keys = {d.abbreviation for d in ALL}
    assert all(group <= keys for group in EQUIVALENT)
    assert repeated([key for group in EQUIVALENT for key in group]) == []
    with pytest.raises(UnknownDiagnosis):
        equivalents("no such thing")


def test_the_page_in_docs_is_what_the_table_says() -> None:
    root = Path(__file__).parents[1]
    page = (root / "docs" / "vocabulary.md").read_text(encoding="utf-8")
    assert page == vocabulary.markdown(), "run: python -m models.vocabulary > docs/vocabulary.md"
    assert all(f"| {d.abbreviation} | {d.name} |" in page for d in ALL)
    printed = subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "models.vocabulary"],
        cwd=root,
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    assert printed == page


@pytest.mark.data
def test_every_scp_code_of_ptb_xl_has_its_diagnosis(data: Path) -> None:
    with (data / "ptbxl100" / "labels.csv").open(newline="") as file:
        header = next(csv.reader(file))
    codes = [c for c in header[4:] if not c.startswith("SUPER_")]
    assert len(codes) == 71
    assert {code for code in codes if code not in by_scp(code).scp} == set()
    assert {code for d in ALL for code in d.scp} == set(codes)


@pytest.mark.data
def test_every_code_in_the_challenges_headers_resolves(data: Path) -> None:
    headers = sorted((data / "samples" / "challenge2021").rglob("*.hea"))
    codes = {
        code.strip()
        for header in headers
        for line in header.read_text().splitlines()
        if line.lstrip("# ").startswith("Dx:")
        for code in line.partition(":")[2].split(",")
    }
    assert len(codes) > 15
    assert {code for code in codes if not lookup(code)} == set()
