"""A paper of small figures for the tests of the reproduction: theory only, made in a second."""

from tightframe.figures.model import (
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Matrix,
    Table,
    block_borders,
)
from tightframe.problem.problem import Problem
from tightframe.reproduce.judging import decided, largest, verdict
from tightframe.reproduce.spec import Figure, Paper, Task

COUNTS = "50x3,5x2"
DECAYS = (1e-3, 5e-3, 8e-3, 1e-2, 1.2e-2, 2e-2)
SCALES = {"smoke": 6, "cpu": 6, "paper": 6}


def problem(decay):
    return Problem(COUNTS, weight_decay=decay, feature_decay=decay).to_dict()


SHARED = Task("solve", {"problems": [problem(d) for d in DECAYS], "arrays": True}, {"what": "all"})


def single(decay):
    return Task("solve", {"problems": [problem(decay)]}, {"what": "one", "decay": decay})


def judge_rank(results):
    part = results.select(what="all")
    measured = largest(part, lambda run: run.measured("rank"))
    return [
        verdict(
            decided(part, measured == 4),
            criterion="the rank is K - 1 somewhere",
            claimed="rank 4",
            predicted=4.0,
            measured=measured,
            tolerance=0.0,
            sentence="The rank is right.",
        )
    ]


def draw(results):
    runs = results.select(what="all").done
    maps = [Matrix(f"λ = {run.decay:g}", run.array("logits")) for run in runs]
    x, y = [run.decay for run in runs], [run.margins[1] for run in runs]
    return [
        Chart(
            "Margins",
            "λ",
            "margin",
            [Curve("minority", x, y, 0, "line+points", [v / 2 for v in y], y)],
            [Mark(runs[0].measured("group1_threshold"), "threshold"), Mark(1e-3, "level", "y")],
            log_x=True,
            log_y=True,
        ),
        HeatMaps("Logits", maps, borders=block_borders(Problem(**problem(1.0)).counts)),
        HeatMaps("One", maps[:1]),
        Table(
            "Ranks",
            ["λ", "rank"],
            [[run.decay, int(run.measured("rank"))] for run in runs],
        ),
        Chart("Nothing", "x", "y", [Curve("none", [1.0], [None])]),
    ]


def draw_table(results):
    rows = [[run.decay, run.measured("rank")] for run in results.done]
    return [Table("Ranks", ["λ", "rank"], rows)]


def refuse(results):
    raise RuntimeError("a mistake in the module")


def broken_tasks(scale):
    bad = {**problem(1e-3), "feature_decay": -1.0}
    return [single(1e-3), Task("solve", {"problems": [bad]}, {"what": "bad"})]


def judge_both(results):
    part = results.select(what="one")
    return [
        verdict(
            decided(part, True),
            criterion="something ran",
            claimed="it runs",
            predicted=None,
            measured=float(len(part.done)),
            tolerance=None,
            sentence="It ran.",
        )
    ]


def figure(name, tasks, judge, drawn):
    return Figure(
        name,
        f"Title of {name}",
        "Fig. 1",
        claim="A claim <b>with</b> markup.",
        caption="What to see.",
        tasks=tasks,
        judge=judge,
        draw=drawn,
        note="Smaller.",
    )


RANK = figure("rank", lambda scale: [SHARED, single(1e-3)], judge_rank, draw)
AGAIN = figure(
    "again",
    lambda scale: [Task(SHARED.kind, SHARED.arguments, {"what": "all"})],
    judge_rank,
    draw_table,
)
BROKEN = figure("broken", broken_tasks, judge_both, lambda results: [])
MISTAKEN = figure("mistaken", lambda scale: [single(1e-3)], refuse, refuse)

GOOD = {"toy": Paper("toy", "T. Oy, On toys, 2020", "https://example.org/toy", [RANK, AGAIN])}
BAD = {
    "toy": Paper(
        "toy", "T. Oy, On toys, 2020", "https://example.org/toy", [RANK, AGAIN, BROKEN, MISTAKEN]
    )
}
