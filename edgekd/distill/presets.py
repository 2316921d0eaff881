"""Named methods as data: their terms, where they come from, and how sure we are of them.

    objective("dkd")                                     # a recipe's objective
    objective("at", offers=("logits", "features"))       # refused: it compares maps

A preset is a row; adding one is adding a row (and at most one short function of a divergence or a
transform). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgekd.errors import RecipeError, UsageError, did_you_mean
from edgekd.spec import Objective, Term, plain

CE = Term("label", "ce")
ALL = ("logits", "features", "map")
"""Taps of an image network that classifies: what presets need least."""
SHORT = ("kd", "lskd", "dist")
"""What ``auto`` tries beside no teacher and the recipe's own."""
WARM = ((0.0, 0.0), (1 / 12, 1.0))
"""Warm-up over the first 20 of 240 epochs."""


@dataclass(frozen=True)
class Preset:
    """One method.

    Attributes:
        name: How recipes call it.
        title: One line.
        formula: What the student minimises.
        paper: Where it was published.
        terms: The objective, with the paper's weights.
        fidelity: ``verified`` against values of a reference implementation, ``from paper``, or
            ``reconstruction`` where the paper's equation could not be read.
        access: The least that the teacher must show: its ``labels``, ``logits``, ``features``; a
            teacher with access ``top-k`` serves every preset on logits. ``none``: no teacher.
        needs: What student (and teacher) must offer: ``logits``, ``features``, ``map``;
            ``outputs`` of a regression, two ``towers``, two ``heads``; ``alike``: both are built
            alike layer for layer, the student with smaller widths; ``pooled``: both classifiers
            read the mean of the map.
        wave: 1 for the methods that edgekd began with, 2 for those added since.
        note: What differs from the paper, and what else the recipe sets.
        init: Where the student's weights begin; see `edgekd.Objective`.
    """

    name: str
    title: str
    formula: str
    paper: str
    terms: tuple[Term, ...]
    fidelity: Literal["verified", "from paper", "reconstruction"]
    access: Literal["none", "labels", "logits", "features"]
    needs: tuple[str, ...] = ("logits",)
    wave: int = 1
    note: str = ""
    init: Literal["random", "lowrank_clone", "teacher_head"] = "random"

    def facts(self) -> dict[str, Any]:
        """Plain JSON."""
        facts: dict[str, Any] = plain(self)
        return facts


def _kl(weight: float = 1.0, **args: float) -> Term:
    return Term("logits", "kl", weight=weight, args=args)


_ROWS = (
    Preset(
        "none", "labels alone: what the control learns", "CE(y, s)", "–", (CE,), "verified",
        "none", (),
    ),
    Preset(
        "kd", "softened logits", "0.1·CE + 0.9·T²·KL(t/T ‖ s/T), T = 4", "arXiv 1503.02531",
        (replace(CE, weight=0.1), _kl(0.9, temperature=4.0)), "verified", "logits",
    ),
    Preset(
        "reverse-kl", "softened logits, seeking modes", "0.1·CE + 0.9·T²·KL(s/T ‖ t/T), T = 4",
        "arXiv 2306.08543",
        (
            replace(CE, weight=0.1),
            Term("logits", "reverse_kl", weight=0.9, args={"temperature": 4.0}),
        ),
        "verified", "logits", note="no gradient through the sampling of sequences",
    ),
    Preset(
        "jsd", "between forward and reverse",
        "0.1·CE + 0.9·T²·(β·KL(t ‖ m) + (1 − β)·KL(s ‖ m)), m = (1 − β)·s + β·t, β = ½, T = 4",
        "arXiv 2306.13649",
        (
            replace(CE, weight=0.1),
            Term("logits", "jsd", weight=0.9, args={"beta": 0.5, "temperature": 4.0}),
        ),
        "verified", "logits",
        note="on the student's own samples with Train.rollout, rounds and on_policy",
    ),
    Preset(
        "dkd", "target and other classes apart", "CE + T²·(1·TCKD + 8·NCKD), T = 4",
        "arXiv 2203.08679", (CE, Term("logits", "dkd", ramp=WARM)), "verified", "logits",
        note="β = 8 of the paper's pairs of one kind; 2 to 6 elsewhere",
    ),
    Preset(
        "dist", "correlations, blind to scale",
        "CE + T²·(1 − r over classes + 1 − r over the batch), T = 1", "arXiv 2205.10536",
        (CE, Term("logits", "dist")), "verified", "logits",
    ),
    Preset(
        "lskd", "standardised logits", "0.1·CE + 9·T²·KL(z(t)/T ‖ z(s)/T), T = 2",
        "arXiv 2403.01427",
        (
            replace(CE, weight=0.1),
            Term("logits", "kl", "zscore", weight=9.0, args={"temperature": 2.0}),
        ),
        "verified", "logits",
    ),
    Preset(
        "deit", "the teacher's choice beside the label", "½·CE(y, s) + ½·CE(argmax t, s)",
        "arXiv 2012.12877",
        (replace(CE, weight=0.5), Term("logits", "hard", weight=0.5)), "from paper", "labels",
        note="one head for both: no distillation token",
    ),
    Preset(
        "pseudo", "the teacher's choice instead of the label", "CE(argmax t, s)",
        "arXiv 2603.23487 (TETO), 2603.25108 (MSRL)", (Term("logits", "hard"),), "from paper",
        "labels", note="labels are not read: the data may have none worth reading",
    ),
    Preset(
        "figkd", "Haar detail of the logits", "CE + 0.01·Σ(detail(s) − detail(t))²",
        "arXiv 2505.11897",
        (CE, Term("logits", "sse", "dwt_detail", weight=0.01)), "reconstruction", "logits",
        note="depends on the order of the classes; wavelet, level and weight are ours",
    ),
    Preset(
        "fitnet", "feature maps", "CE + 100·MSE(conv(F_s), F_t)", "arXiv 1412.6550",
        (CE, Term("map", "mse", project="conv", weight=100.0)), "verified", "features", ("map",),
    ),
    Preset(
        "feature", "pooled features", "CE + MSE(W·f_s, f_t)", "arXiv 2603.26145",
        (CE, Term("features", "mse", project="linear")), "verified", "features", ("features",),
        note="features of the teacher are standardised by dimension",
    ),
    Preset(
        "at", "where maps are strong", "CE + 1000·MSE(A(F_s), A(F_t)), A = unit mean of F²",
        "arXiv 1612.03928", (CE, Term("map", "mse", "attention", weight=1000.0)), "verified",
        "features", ("map",), note="the last map alone",
    ),
    Preset(
        "crd", "tell the sample's own teacher from others", "CE + 0.8·NCE(v_s, v_t, memory)",
        "arXiv 1910.10699",
        (CE, Term("features", "crd", weight=0.8, args={"negatives": 256.0})), "from paper",
        "features", ("features",),
        note="256 negatives for small data and memory, 16384 in the paper",
    ),
    Preset(
        "diffkd", "denoise the student's features first",
        "CE + MSE(DDIM(F_s), F_t) + MSE(ε(F_t + noise), noise)", "arXiv 2305.15712",
        (CE, Term("map", "diffusion")), "from paper", "features", ("map",),
        note="1×1 layers; features are not compressed; cleaning begins at half of the noise",
    ),
    Preset(
        "amfd", "attentive regions (MEA)",
        "CE + 10⁻³·Σ S_t·C_t·(F_s − F_t)² + 10⁻³·(L1(C_s, C_t) + L1(S_s, S_t)) + 5·10⁻⁶·context",
        "arXiv 2405.12944", (CE, Term("map", "mea", project="conv")), "from paper", "features",
        ("map",), note="no boxes: the mask is 1; one branch a term",
    ),
    Preset(
        "simkd", "the teacher's classifier behind a projector that ships",
        "MSE(P(F_s), F_t); logits = teacher's classifier(mean P(F_s))", "arXiv 2203.14001",
        (Term("map", "mse"),), "from paper", "features", ("logits", "map", "pooled"),
        note="projector and classifier are part of what ships and of its counts; labels are not"
        " read; maps of other sizes are averaged after the projector, not before; on features"
        " where a classifier reads no mean of a map",
        init="teacher_head",
    ),
    Preset(
        "rkd", "distances and angles within a batch",
        "CE + 25·huber(distances) + 50·huber(angles)", "arXiv 1904.05068",
        (
            CE,
            Term("features", "smooth_l1", "distances", weight=25.0),
            Term("features", "smooth_l1", "angles", weight=50.0),
        ),
        "verified", "features", ("features",),
    ),
    Preset(
        "sp", "similarities within a batch", "CE + 3000·MSE(rows(F_s·F_sᵀ), rows(F_t·F_tᵀ))",
        "arXiv 1907.09682", (CE, Term("map", "mse", "similarity", weight=3000.0)), "verified",
        "features", ("map",),
    ),
    Preset(
        "clipkd", "two towers: similarities, features, contrast",
        "CLIP + KL(S(v_t, u_t) ‖ S(v_s, u_s)) + ICL + 2000·MSE(v_s, v_t)", "arXiv 2307.12732",
        (
            Term("label", "contrastive"),
            Term("features", "kl", "crosssim", args={"temperature": 1.0}),
            Term("features", "icl"),
            Term("features", "mse", "l2towers", weight=2000.0),
        ),
        "from paper", "features", ("towers",),
        note="both embed in the same width; the cross scale is 1/0.07, where the paper's code has"
        " its logarithm",
    ),
    Preset(
        "cliprd", "two towers: alike in both and across",
        "CLIP + KL(S(v_t, u_t) ‖ S(v_s, u_s)) + ICL + 2000·MSE + VRD + XRD", "arXiv 2603.25383",
        (
            Term("label", "contrastive"),
            Term("features", "kl", "crosssim", args={"temperature": 1.0}),
            Term("features", "icl"),
            Term("features", "mse", "l2towers", weight=2000.0),
            Term("features", "vrd"),
            Term("features", "xrd"),
        ),
        "reconstruction", "features", ("towers",),
        note="VRD and XRD are not least at student = teacher: regularisers",
    ),
    Preset(
        "action", "actions of the teacher", "½·huber(y, a_s) + ½·huber(a_t, a_s)",
        "arXiv 2603.26249",
        (Term("label", "smooth_l1", weight=0.5), Term("logits", "smooth_l1", weight=0.5)),
        "from paper", "logits", ("outputs",),
        note="on the student's own rollouts with Train.rollout (arXiv 2604.00626, 1011.0686)",
    ),
    Preset(
        "dml", "two students teach one another", "CE + KL(p ‖ s) each way", "arXiv 1706.00384",
        (CE, Term("logits", "kl", teacher="peer:logits", args={"temperature": 1.0})),
        "from paper", "none", (), note="no teacher; the first of the two ships",
    ),
    Preset(
        "dmc", "the fused head teaches the heads of its modalities",
        "CE + KL(fused ‖ first) + KL(fused ‖ second)", "arXiv 2603.23916",
        (
            CE,
            Term("feat:first", "kl", teacher="self:logits", args={"temperature": 1.0}),
            Term("feat:second", "kl", teacher="self:logits", args={"temperature": 1.0}),
        ),
        "reconstruction", "none", ("heads",),
        note="no teacher; the modules first and second return the logits of one modality each",
    ),
    Preset(
        "gpd", "features first, logits later, where the teacher is ahead",
        "CE + gap·((1 − t)·MSE(W·f_s, f_t) + t·T²·KL(t/T ‖ s/T)), T = 4", "arXiv 2603.26064",
        (
            CE,
            Term("features", "mse", project="linear", ramp=((0, 1), (1, 0)), gate="gap"),
            Term("logits", "kl", args={"temperature": 4.0}, ramp=((0, 0), (1, 1)), gate="gap"),
        ),
        "reconstruction", "features", ("logits", "features"),
        note="the gap gate stands for a routing rule that could not be read; for a teacher that"
        " sees more (Input.channels)",
    ),
    Preset(
        "lrc", "low-rank clone: the teacher's weights between trained projections",
        "0.1·CE + 0.9·T²·KL(t/T ‖ s/T), T = 4, over L and R of every W_s = L·W_t·R",
        "arXiv 2505.12781, 2603.22355",
        (replace(CE, weight=0.1), _kl(0.9, temperature=4.0)), "from paper", "features",
        ("logits", "alike"),
        note="multiplied out before export; the terms are kd's; the paper's clone loss of hidden"
        " activations is Term(feat:PATH, mse, project=clone), 0.2 a layer; biases and norms are"
        " trained from scratch",
        init="lowrank_clone",
    ),
    Preset(
        "wsld", "samples weigh by what the student lacks",
        "CE + 2.5·T²·(1 − exp(−CE_s/CE_t))·H(t/T, s/T), T = 2", "arXiv 2102.00650",
        (CE, Term("logits", "wsld", weight=2.5)), "verified", "logits", wave=2,
    ),
    Preset(
        "mlkd", "instances, classes and batches at several temperatures",
        "0.1·CE + 9·mean over T of T²·KL + class and batch products", "CVPR 2023 (Jin et al.)",
        (
            replace(CE, weight=0.1),
            *(_kl(1.8, temperature=t) for t in (2.0, 3.0, 4.0, 5.0, 6.0)),
            Term("logits", "gram_sum", "class_gram"),
            Term("logits", "gram_sum", "batch_gram"),
        ),
        "verified", "logits", wave=2, note="one view; no masks of confidence",
    ),
    Preset(
        "nst", "channels as samples of one distribution", "CE + 50·MMD²(channels), kernel (aᵀb)²",
        "arXiv 1707.01219", (CE, Term("map", "mmd", "channel_rows", weight=50.0)), "verified",
        "features", ("map",), wave=2,
    ),
    Preset(
        "pkt", "similarities as probabilities", "CE + 30000·mean t·log(t/s) of cosines",
        "arXiv 1803.10837",
        (CE, Term("features", "relative_entropy", "affinity", weight=30_000.0)), "verified",
        "features", ("features",), wave=2,
    ),
    Preset(
        "cwd", "every channel as a distribution over space",
        "CE + 10·T²·KL(F_t/T ‖ conv(F_s)/T) over space, T = 1", "arXiv 2011.13256",
        (
            CE,
            Term("map", "kl", "rows", project="conv", weight=10.0, args={"temperature": 1.0}),
        ),
        "verified", "features", ("map",), wave=2,
    ),
    Preset(
        "pkd", "correlations of feature maps", "CE + 6·½·MSE(std(conv(F_s)), std(F_t))",
        "arXiv 2207.02039",
        (CE, Term("map", "mse", "standardise", project="conv", weight=3.0)), "verified",
        "features", ("map",), wave=2,
    ),
)  # fmt: skip
PRESETS: Mapping[str, Preset] = {row.name: row for row in _ROWS}


def preset(name: str) -> Preset:
    """Return a preset.

    Raises:
        UsageError: No preset has this name.
    """
    if name not in PRESETS:
        raise UsageError(f"no method is called {name!r}", hint=did_you_mean(name, PRESETS))
    return PRESETS[name]


def objective(
    name: str,
    *,
    own: Mapping[str, tuple[Term, ...]] | None = None,
    offers: Collection[str] = ALL,
    temperature: float = 0.0,
    weight: float = 1.0,
    at: str = "setting: objective",
    usual: str = "",
) -> Objective:
    """Return the objective that a recipe's setting names.

    Args:
        name: Of a preset, or of one of the recipe's own; ``auto`` lets short trainings choose
            among no teacher, those of `SHORT` that fit, and ``usual``.
        own: The recipe's own objectives; they go before presets of the same name.
        offers: What student and teacher of the recipe offer; see `Preset.needs`.
        temperature: Instead of the preset's, in every term that has one; 0 for the preset's.
        weight: Factor of all terms but the label's.
        at: Which setting, for the message.
        usual: What the recipe takes when nothing is asked for; empty where there is no ``auto``.

    Raises:
        RecipeError: No such preset, or it needs a tap that is not offered.
    """
    mine = own or {}
    if name == "auto" and usual:
        names = [n for n in SHORT if n != usual and set(PRESETS[n].needs) <= set(offers)]
        parts = [
            objective(n, own=mine, offers=offers, temperature=temperature, weight=weight, at=at)
            for n in (*names, usual)
        ]
        return auto(parts[-1], *parts[:-1])
    if name in mine:
        return Objective(name, mine[name])
    fits = [p.name for p in _ROWS if set(p.needs) <= set(offers)]
    if name not in PRESETS:
        hint = did_you_mean(name, {*mine, *fits, *(["auto"] if usual else [])})
        raise RecipeError(f"no objective is called {name!r}", at=at, hint=hint)
    lacking = [tap for tap in PRESETS[name].needs if tap not in offers]
    if lacking:
        why = f"compares {', '.join(lacking)}; here there are {', '.join(offers)}"
        if lacking == ["alike"]:
            why = "wants teacher and student alike layer for layer; here they are not"
        hint = f"what fits: {', '.join((*mine, *fits))}"
        raise RecipeError(f"objective {name!r} {why}", at=at, hint=hint)
    terms = tuple(_set(t, temperature, weight) for t in PRESETS[name].terms)
    return Objective(name, terms, PRESETS[name].init)


def auto(usual: Objective, *others: Objective) -> Objective:
    """Return the objective that is chosen on validation data: no teacher, others, the usual one."""
    first = usual.without_teacher()
    rest = [one for one in (*others, usual) if one.needs_teacher or one.terms != first.terms]
    return replace(usual, name="auto", among=(first, *rest))


def _set(term: Term, temperature: float, weight: float) -> Term:
    if not term.source:
        return term
    args = dict(term.args)
    if temperature and "temperature" in args:
        args["temperature"] = temperature
    return replace(term, weight=term.weight * weight, args=args)


@dataclass(frozen=True)
class Paper:
    """How edgekd states a paper of its founding digest.

    Attributes:
        number: In the digest.
        title: Short name.
        paper: arXiv id.
        status: ``preset``, ``regime`` (settings of a training beside a preset), ``planned``, or
            ``out of reach``.
        how: In edgekd's terms; or what is missing.
        presets: Presets that state it or a part of it.
    """

    number: int
    title: str
    paper: str
    status: Literal["preset", "regime", "planned", "out of reach"]
    how: str
    presets: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Plain JSON."""
        facts: dict[str, Any] = plain(self)
        return facts


PAPERS = (
    Paper(
        1, "On-policy distillation", "2604.00626", "regime",
        "Train.rollout, rounds, on_policy (λ from 0) with any preset on outputs; no gradient"
        " through the sampling; recipe decision_transformer", ("action", "jsd", "reverse-kl"),
    ),
    Paper(
        2, "Low-rank clone", "2603.22355, 2505.12781", "preset",
        "Objective.init: layers of the teacher between trained projections, multiplied out and"
        " compared before export; Term.project clone for the loss of hidden activations; widths are"
        " the student's, not the theory's rank", ("lrc",),
    ),
    Paper(
        3, "Zero-shot cross-domain distillation", "2603.28994", "planned",
        "a teacher of another task wants an output map; its inputs are mapped by Network.input",
    ),
    Paper(
        4, "FSKD", "2604.01766", "regime",
        "Input.channels: the teacher sees all channels, the student some; labels of a regression."
        " Not its sensors, not SegFormer", ("action", "fitnet"),
    ),
    Paper(
        5, "4DRaL", "2603.26206", "planned",
        "the relations are presets and the two views are Input.channels and Train.corrupt; its"
        " restoring head and recall across databases are not built", ("rkd", "sp"),
    ),
    Paper(
        6, "Diff-KD", "2604.02061", "preset",
        "in part: denoised features (of its ancestor, 2305.15712), clean teacher and corrupted"
        " student by Train.corrupt; not the fusion of several agents", ("diffkd",),
    ),
    Paper(
        7, "TED", "2603.26778", "out of reach",
        "it changes prompts, no weights: nothing is left to export; Network.access labels or an"
        " ONNX teacher is the nearest",
    ),
    Paper(
        8, "ECGFounder → VQC", "2603.27269", "planned",
        "a student of simulated qubits that folds to two products of matrices",
    ),
    Paper(
        9, "Distillation resistance", "2603.25022", "out of reach",
        "theory without an algorithm; what can be done is to measure: Network.access labels,"
        " top-k, logits, features",
    ),
    Paper(
        10, "FASD", "2409.11018", "planned",
        "a state-space student; its losses are presets; sparse convolutions over LiDAR are out"
        " of reach", ("fitnet", "kd"),
    ),
    Paper(
        11, "MuDD (GPD)", "2603.26064", "preset",
        "ramps from features to logits, gated by the gap to a teacher that sees more channels",
        ("gpd",),
    ),
    Paper(
        12, "DecepGPT (DMC)", "2603.23916", "preset",
        "terms whose teacher is self:logits; not its reports in words", ("dmc",),
    ),
    Paper(
        13, "HEAR", "2603.26098", "planned", "stages: tokenizer, masked modelling, fine-tuning",
    ),
    Paper(
        14, "AMFD", "2405.12944", "preset",
        "its MEA terms, one a branch, with a mask of 1; no detector is shipped", ("amfd",),
    ),
    Paper(
        15, "C-CKD", "2603.22530", "planned",
        "a teacher trained jointly; its contrast between two sides is the term icl", ("clipkd",),
    ),
    Paper(
        16, "SynLeaF", "2603.22369", "regime",
        "Recipe.teachers: one a branch, terms read NAME:TAP; which to follow is chosen on"
        " validation by Objective.among; its graph of knowledge is out of reach", ("kd", "feature"),
    ),
    Paper(
        17, "CLIP-RD", "2603.25383", "preset", "VRD and XRD rebuilt from the abstract's words",
        ("cliprd", "clipkd"),
    ),
    Paper(
        18, "MSRL", "2603.25108", "regime",
        "in part: hard pseudo-labels of a teacher that sees more (Input.channels); its"
        " reinforcement learning on 8 G parameters is out of reach", ("pseudo",),
    ),
    Paper(
        19, "TETO", "2603.23487", "preset",
        "pseudo-labels with no label term; its sampler weighted by the teacher is not built",
        ("pseudo",),
    ),
    Paper(
        20, "TMKD", "2603.24208", "planned", "several views of one teacher, weighted",
    ),
    Paper(
        21, "GeoSANE", "2603.23408", "out of reach",
        "training a generator of weights needs a zoo of models; none is shipped; a Call that"
        " builds a network may bring generated weights",
    ),
    Paper(
        22, "FiGKD", "2505.11897", "preset",
        "Haar detail of the logits; rebuilt, and dependent on the order of classes", ("figkd",),
    ),
)  # fmt: skip


def papers() -> tuple[Paper, ...]:
    """Return every paper of the founding digest and how edgekd states it."""
    return PAPERS


def methods(name: str | None = None) -> tuple[Preset, ...]:
    """Return all presets, or the one of this name.

    Raises:
        UsageError: No preset has this name.
    """
    return _ROWS if name is None else (preset(name),)
