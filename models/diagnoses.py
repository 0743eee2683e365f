"""The table of ECG diagnoses: one row per class, with the codes the data sets know it by.

Sources. Abbreviations and names of the first part: Extended Data Table 1 of the LiteHeart paper,
which spells them as the PhysioNet/CinC Challenges do. SCP codes and their texts:
``scp_statements.csv`` of PTB-XL 1.0.3. SNOMED CT codes: ``dx_mapping_scored.csv`` and
``dx_mapping_unscored.csv`` of the PhysioNet/CinC Challenge 2021 (on GitHub,
physionetchallenges/evaluation-2021), save 164854000 "Electrocardiogram normal", which is SNOMED
CT's own description.

An SCP statement carries a SNOMED CT code only where the Challenge's files give that statement, and
no other, that code. Several statements the Challenge folded into a wider concept (all infarctions
but the anterior into 164865005, all ischaemia without its own region into 164861001) or into a
narrower one (bigeminy of unknown origin into ventricular bigeminy); there the code stays with the
class it names and the SCP statement has none. The SNOMED mapping of PTB-XL+ is no source here: its
identifiers are those of OMOP concepts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """One class of finding.

    Attributes:
        abbreviation: The key by which bundles, results and configuration name the class.
        name: What people call it.
        snomed: SNOMED CT code, or None where no published mapping gives one.
        scp: SCP-ECG statement codes as PTB-XL spells them.
        synonyms: Other abbreviations and names; no two classes share one.
    """

    abbreviation: str
    name: str
    snomed: str | None
    scp: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()


_PAPER = (
    Diagnosis("NSR", "sinus rhythm", "426783006", ("SR",), ("normal sinus rhythm", "Normal", "N")),
    Diagnosis("NECG", "normal ECG", "164854000", ("NORM",), ("electrocardiogram normal",)),
    Diagnosis("AF", "atrial fibrillation", "164889003", ("AFIB",), ("A",)),
    Diagnosis("AFL", "atrial flutter", "164890007", ("AFLT",)),
    Diagnosis(
        "IAVB",
        "first-degree atrioventricular block",
        "270492004",
        ("1AVB",),
        ("I-AVB", "1st degree av block", "first degree AV block"),
    ),
    Diagnosis("BBB", "bundle branch block", "6374002", (), ("bundlebranchblock",)),
    Diagnosis("LBBB", "left bundle branch block", "164909002"),
    Diagnosis("CLBBB", "complete left bundle branch block", "733534002", ("CLBBB",)),
    Diagnosis("RBBB", "right bundle branch block", "59118001"),
    Diagnosis("CRBBB", "complete right bundle branch block", "713427006", ("CRBBB",)),
    Diagnosis("IRBBB", "incomplete right bundle branch block", "713426002", ("IRBBB",)),
    Diagnosis("PRBBB", "partial right bundle branch block", None),
    Diagnosis(
        "NSIVCB",
        "nonspecific intraventricular conduction disorder",
        "698252002",
        ("IVCD",),
        ("non-specific intraventricular conduction disturbance (block)",),
    ),
    Diagnosis("LAnFB", "left anterior fascicular block", "445118002", ("LAFB",)),
    Diagnosis("LAD", "left axis deviation", "39732003"),
    Diagnosis("RAD", "right axis deviation", "47665007"),
    Diagnosis(
        "LQRSV",
        "low qrs voltages",
        "251146004",
        ("LVOLT",),
        ("low QRS voltages in the frontal and horizontal leads",),
    ),
    Diagnosis("LQT", "prolonged qt interval", "111975006", ("LNGQT",), ("long QT-interval",)),
    Diagnosis("LPR", "prolonged pr interval", "164947007", ("LPR",)),
    Diagnosis(
        "PAC",
        "premature atrial contraction",
        "284470004",
        ("PAC",),
        ("premature atrial contractions", "atrial premature complex"),
    ),
    Diagnosis(
        "PVC",
        "premature ventricular contractions",
        "427172004",
        ("PVC",),
        ("premature ventricular contraction", "ventricular premature complex"),
    ),
    Diagnosis("VPB", "ventricular premature beats", "17338001"),
    Diagnosis(
        "PR",
        "pacing rhythm",
        "10370003",
        ("PACE",),
        ("paced rhythm", "normal functioning artificial pacemaker"),
    ),
    Diagnosis(
        "PRWP", "poor R wave progression", "365413008", (), ("PRP", "poor R wave Progression")
    ),
    Diagnosis(
        "QAb",
        "Q wave abnormal",
        "164917005",
        ("QWAVE",),
        ("qwave abnormal", "Q waves present"),
    ),
    # SMU tells a small q from a deep Q by the case of the letter alone.
    Diagnosis("qAb", "q wave abnormal", None),
    Diagnosis("SA", "sinus arrhythmia", "427393009", ("SARRH",)),
    Diagnosis("SB", "sinus bradycardia", "426177001", ("SBRAD",)),
    # "ST" is SMU's abbreviation; everywhere else those letters are a segment, never a rhythm.
    Diagnosis("STach", "sinus tachycardia", "427084000", ("STACH",), ("ST",)),
    Diagnosis("STE", "ST elevation", "164931005", ("STE_",), ("non-specific ST elevation",)),
    Diagnosis("STD", "ST depression", "429622005", ("STD_",), ("non-specific ST depression",)),
    Diagnosis("TAb", "T wave abnormal", "164934002", ("TAB_",), ("T-wave abnormality",)),
    Diagnosis("TInv", "T wave inversion", "59931005", ("INVT",), ("inverted T-waves",)),
    Diagnosis("HEH", "heart enlargement and hypertrophy", None),
    Diagnosis(
        "HLVV",
        "high left ventricular voltage",
        "55827005",
        (),
        ("LVHV", "left ventricular high voltage"),
    ),
)

_PTB_XL = (
    Diagnosis(
        "2AVB",
        "second degree AV block",
        "195042002",
        ("2AVB",),
        ("IIAVB", "II-AVB", "2nd degree av block"),
    ),
    Diagnosis(
        "3AVB",
        "third degree AV block",
        "27885002",
        ("3AVB",),
        ("CHB", "III-AVB", "complete heart block"),
    ),
    Diagnosis("ILBBB", "incomplete left bundle branch block", "251120003", ("ILBBB",)),
    Diagnosis("LPFB", "left posterior fascicular block", "445211001", ("LPFB",)),
    Diagnosis(
        "WPW",
        "Wolff-Parkinson-White syndrome",
        "74390002",
        ("WPW",),
        ("wolff parkinson white pattern", "Wolf-Parkinson-White syndrome"),
    ),
    Diagnosis("SVTAC", "supraventricular tachycardia", "426761007", ("SVTAC",), ("SVT",)),
    Diagnosis("PSVT", "paroxysmal supraventricular tachycardia", "67198005", ("PSVT",)),
    Diagnosis("SVARR", "supraventricular arrhythmia", None, ("SVARR",)),
    Diagnosis("BIGU", "bigeminal pattern (unknown origin, SV or Ventricular)", None, ("BIGU",)),
    Diagnosis("TRIGU", "trigeminal pattern (unknown origin, SV or Ventricular)", None, ("TRIGU",)),
    Diagnosis("PRC(S)", "premature complex(es)", None, ("PRC(S)",)),
    Diagnosis("LVH", "left ventricular hypertrophy", "164873001", ("LVH",)),
    Diagnosis("RVH", "right ventricular hypertrophy", "89792004", ("RVH",)),
    Diagnosis("SEHYP", "septal hypertrophy", None, ("SEHYP",)),
    Diagnosis("VCLVH", "voltage criteria (QRS) for left ventricular hypertrophy", None, ("VCLVH",)),
    Diagnosis(
        "LAO/LAE",
        "left atrial overload/enlargement",
        "67741000119109",
        ("LAO/LAE",),
        ("LAE", "left atrial enlargement"),
    ),
    Diagnosis(
        "RAO/RAE",
        "right atrial overload/enlargement",
        "446358003",
        ("RAO/RAE",),
        ("RAH", "right atrial hypertrophy"),
    ),
    Diagnosis("ABQRS", "abnormal QRS", "164951009", ("ABQRS",)),
    Diagnosis("HVOLT", "high QRS voltage", None, ("HVOLT",)),
    # "AMI" is the anterior infarction of PTB-XL; the Challenge's "AMI", an acute one, is AcMI here.
    Diagnosis("AMI", "anterior myocardial infarction", "54329005", ("AMI",), ("AnMI",)),
    Diagnosis("ALMI", "anterolateral myocardial infarction", None, ("ALMI",)),
    Diagnosis("ASMI", "anteroseptal myocardial infarction", None, ("ASMI",)),
    Diagnosis("ILMI", "inferolateral myocardial infarction", None, ("ILMI",)),
    Diagnosis("IMI", "inferior myocardial infarction", None, ("IMI",)),
    Diagnosis("IPLMI", "inferoposterolateral myocardial infarction", None, ("IPLMI",)),
    Diagnosis("IPMI", "inferoposterior myocardial infarction", None, ("IPMI",)),
    Diagnosis("LMI", "lateral myocardial infarction", None, ("LMI",)),
    Diagnosis("PMI", "posterior myocardial infarction", None, ("PMI",)),
    Diagnosis("INJAL", "subendocardial injury in anterolateral leads", None, ("INJAL",)),
    Diagnosis("INJAS", "subendocardial injury in anteroseptal leads", None, ("INJAS",)),
    Diagnosis("INJIL", "subendocardial injury in inferolateral leads", None, ("INJIL",)),
    Diagnosis("INJIN", "subendocardial injury in inferior leads", None, ("INJIN",)),
    Diagnosis("INJLA", "subendocardial injury in lateral leads", None, ("INJLA",)),
    Diagnosis(
        "ISC_",
        "non-specific ischemic ST-T changes",
        "164861001",
        ("ISC_",),
        ("MIs", "myocardial ischemia", "non-specific ischemic"),
    ),
    Diagnosis("ISCAL", "ischemic ST-T changes in anterolateral leads", None, ("ISCAL",)),
    Diagnosis(
        "ISCAN",
        "ischemic ST-T changes in anterior leads",
        "426434006",
        ("ISCAN",),
        ("AnMIs", "anterior ischemia"),
    ),
    Diagnosis("ISCAS", "ischemic ST-T changes in anteroseptal leads", None, ("ISCAS",)),
    Diagnosis("ISCIL", "ischemic ST-T changes in inferolateral leads", None, ("ISCIL",)),
    Diagnosis(
        "ISCIN",
        "ischemic ST-T changes in inferior leads",
        "425419005",
        ("ISCIN",),
        ("IIs", "inferior ischaemia"),
    ),
    Diagnosis(
        "ISCLA",
        "ischemic ST-T changes in lateral leads",
        "425623009",
        ("ISCLA",),
        ("LIs", "lateral ischaemia"),
    ),
    Diagnosis("NST_", "non-specific ST changes", "55930002", ("NST_",), ("STC", "s t changes")),
    Diagnosis("NDT", "non-diagnostic T abnormalities", None, ("NDT",)),
    Diagnosis("NT_", "non-specific T-wave changes", None, ("NT_",)),
    Diagnosis("LOWT", "low amplitude T-waves", None, ("LOWT",)),
    Diagnosis("ANEUR", "ST-T changes compatible with ventricular aneurysm", None, ("ANEUR",)),
    Diagnosis("DIG", "digitalis-effect", None, ("DIG",)),
    Diagnosis("EL", "electrolytic disturbance or drug (former EDIS)", None, ("EL",)),
)

# The rest of the Challenge's codes, so that any of its files can be read.
_CHALLENGE = (
    Diagnosis("Brady", "bradycardia", "426627000"),
    Diagnosis("SVPB", "supraventricular premature beats", "63593006"),
    Diagnosis("AAR", "accelerated atrial escape rhythm", "233892002"),
    Diagnosis("AED", "atrial escape beat", "251187003"),
    Diagnosis("AIVR", "accelerated idioventricular rhythm", "61277005"),
    Diagnosis("AJR", "accelerated junctional rhythm", "426664006"),
    Diagnosis("ALR", "suspect arm ecg leads reversed", "251139008"),
    Diagnosis("AcMI", "acute myocardial infarction", "57054005"),
    Diagnosis("AMIs", "acute myocardial ischemia", "413444003"),
    Diagnosis("AB", "atrial bigeminy", "251173003"),
    Diagnosis("AFAFL", "atrial fibrillation and flutter", "195080001"),
    Diagnosis("AH", "atrial hypertrophy", "195126007"),
    Diagnosis("AP", "atrial pacing pattern", "251268003"),
    Diagnosis("ARH", "atrial rhythm", "106068003"),
    Diagnosis("ATach", "atrial tachycardia", "713422000"),
    Diagnosis("AVB", "av block", "233917008"),
    Diagnosis("AVD", "atrioventricular dissociation", "50799005"),
    Diagnosis("AVJR", "atrioventricular junctional rhythm", "29320008"),
    Diagnosis("AVNRT", "atrioventricular node reentrant tachycardia", "251166008"),
    Diagnosis("AVRT", "atrioventricular reentrant tachycardia", "233897008"),
    Diagnosis("BPAC", "blocked premature atrial contraction", "251170000"),
    Diagnosis("BRU", "brugada", "418818005"),
    Diagnosis("BTS", "brady tachy syndrome", "74615001"),
    Diagnosis("CAF", "chronic atrial fibrillation", "426749004"),
    Diagnosis("CCR", "counterclockwise rotation", "251199005"),
    Diagnosis("CVCL/CCVCL", "clockwise or counterclockwise vectorcardiographic loop", "61721007"),
    Diagnosis("CD", "cardiac dysrhythmia", "698247007"),
    Diagnosis("CIAHB", "congenital incomplete atrioventricular heart block", "204384007"),
    Diagnosis("CHD", "coronary heart disease", "53741008"),
    Diagnosis("CMI", "chronic myocardial ischemia", "413844008"),
    Diagnosis("CR", "clockwise rotation", "251198002"),
    Diagnosis("DIB", "diffuse intraventricular block", "82226007"),
    Diagnosis("ERe", "early repolarization", "428417006"),
    Diagnosis("FB", "fusion beats", "13640000"),
    Diagnosis("FQRS", "fqrs wave", "164942001"),
    Diagnosis("HF", "heart failure", "84114007"),
    Diagnosis("HVD", "heart valve disorder", "368009"),
    Diagnosis("HTV", "high t-voltage", "251259000"),
    Diagnosis("ICA", "indeterminate cardiac axis", "251200008"),
    Diagnosis("IIAVBII", "mobitz type II atrioventricular block", "426183003"),
    Diagnosis("ISTD", "inferior ST segment depression", "704997005"),
    Diagnosis("IR", "idioventricular rhythm", "49260003"),
    Diagnosis("JE", "junctional escape", "426995002"),
    Diagnosis("JPC", "junctional premature complex", "251164006"),
    Diagnosis("JTach", "junctional tachycardia", "426648003"),
    Diagnosis("LAA", "left atrial abnormality", "253352002"),
    Diagnosis("LAH", "left atrial hypertrophy", "446813000"),
    Diagnosis("LVS", "left ventricular strain", "370365005"),
    Diagnosis("MI", "myocardial infarction", "164865005"),
    Diagnosis("MoI", "mobitz type I wenckebach atrioventricular block", "54016002"),
    Diagnosis("NSSTTA", "nonspecific st t abnormality", "428750005"),
    Diagnosis("OldMI", "old myocardial infarction", "164867002"),
    Diagnosis("PAF", "paroxysmal atrial fibrillation", "282825002"),
    Diagnosis("PPW", "prolonged P wave", "251205003"),
    Diagnosis("PVT", "paroxysmal ventricular tachycardia", "425856008"),
    Diagnosis("PWC", "p wave change", "164912004"),
    Diagnosis("RAAb", "right atrial abnormality", "253339007"),
    Diagnosis("RAb", "r wave abnormal", "164921003"),
    Diagnosis("RAHV", "right atrial high voltage", "67751000119106"),
    Diagnosis("RAF", "rapid atrial fibrillation", "314208002"),
    Diagnosis("SAAWR", "sinus atrium to atrial wandering rhythm", "17366009"),
    Diagnosis("SAB", "sinoatrial block", "65778007"),
    Diagnosis("SARR", "sinus arrest", "5609005"),
    Diagnosis("SND", "sinus node dysfunction", "60423000"),
    Diagnosis("SPRI", "shortened pr interval", "49578007"),
    Diagnosis("SQT", "decreased qt interval", "77867006"),
    Diagnosis("STIAb", "st interval abnormal", "164930006"),
    Diagnosis("SVB", "supraventricular bigeminy", "251168009"),
    Diagnosis("TIA", "transient ischemic attack", "266257000"),
    Diagnosis("TPW", "tall p wave", "251223006"),
    Diagnosis("UAb", "u wave abnormal", "164937009"),
    Diagnosis("VBig", "ventricular bigeminy", "11157007"),
    Diagnosis("VEB", "ventricular ectopics", "164884008"),
    Diagnosis("VEsB", "ventricular escape beat", "75532003"),
    Diagnosis("VEsR", "ventricular escape rhythm", "81898007"),
    Diagnosis("VF", "ventricular fibrillation", "164896001"),
    Diagnosis("VFL", "ventricular flutter", "111288001"),
    Diagnosis("VH", "ventricular hypertrophy", "266249003"),
    Diagnosis("VPEx", "ventricular pre excitation", "195060002"),
    Diagnosis("VPP", "ventricular pacing pattern", "251266004"),
    Diagnosis("VPVC", "paired ventricular premature complexes", "251182009"),
    Diagnosis("VTach", "ventricular tachycardia", "164895002"),
    Diagnosis("VTrig", "ventricular trigeminy", "251180001"),
    Diagnosis("WAP", "wandering atrial pacemaker", "195101003"),
)

TABLE: tuple[Diagnosis, ...] = _PAPER + _PTB_XL + _CHALLENGE

EQUIVALENT: tuple[frozenset[str], ...] = (
    frozenset({"RBBB", "CRBBB"}),
    frozenset({"LBBB", "CLBBB"}),
    frozenset({"PAC", "SVPB"}),
    # The Challenge scores PVC and VPB as one. VEB it left unscored, but VEB is the code its files
    # give to the premature ventricular beats of CPSC2018 and PTB-XL.
    frozenset({"PVC", "VPB", "VEB"}),
)
"""Groups of classes that data sets use for the same finding, as in the Challenge 2021."""
