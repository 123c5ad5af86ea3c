"""Which guidance and sampler suit the image models: ``python -m demo.eval.image_choice --out FILE``.

Both readers look at pictures of one and of two characters for each guidance, sampler and scheduler, on scenes of which
the report measures none. Where the readers differ, a picture is not what anything in the world looks like; so the
choice is where they agree most, among those that do as prompted.
"""

import argparse
import json
from pathlib import Path

import torch

from demo.eval import frozen
from demo.eval.analytic_reader import AnalyticReader
from demo.eval.image_measures import prompt_scores
from demo.eval.image_models import CHECKPOINTS, SAMPLERS, SCHEDULERS, ImageModels
from demo.eval.image_report import Report, scenes_of
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import agreement

FIRST = 950  # of the report's seeds; the report's own end far below
SCALES = (1.5, 2.0, 2.5, 3.0, 4.0)
PROMPTED = {"one.look": 0.97, "two.look": 0.93, "one.pattern": 0.93, "two.pattern": 0.88}
"""Shares below which a choice is out of the question."""


def measure(models, readers, n: int, cfg: float) -> dict[str, float]:
    """Shares over n pictures of one and n of two characters."""
    report = Report()
    for characters, name in ((1, "one"), (2, "two")):
        scenes, sentences = scenes_of(n, FIRST * 10 + characters, characters, "train")
        pictures = models.generate(sentences, FIRST * 100 + characters, cfg)
        first, second = (reader.read(pictures) for reader in readers)
        report.add(name, {key: prompt_scores(scenes, first)[key] for key in ("look", "pattern", "accessory")})
        report.add("agreement", {"picture": agreement(first, second)["picture"]})
    return {name: round(share.value, 4) for name, share in report.shares.items()}


def best(rows: list[dict]) -> dict:
    """The row whose readers agree most, of those that do as prompted, or of all where none does."""
    able = [row for row in rows if all(row[name] >= bar for name, bar in PROMPTED.items())]
    return max(able or rows, key=lambda row: row["agreement.picture"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--models", type=Path, default=CHECKPOINTS)
    parser.add_argument("--cfg", type=float, nargs="+", default=SCALES)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--schedulers", nargs="+", choices=SCHEDULERS, default=SCHEDULERS)
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    arguments = parser.parse_args()
    frozen.check()
    from demo.bare_machine import use_host

    use_host()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models, readers = ImageModels(arguments.models, device), (NetworkReader(device=device), AnalyticReader(device))
    rows = []
    for models.sampler in arguments.samplers:
        for models.scheduler in arguments.schedulers:
            for cfg in arguments.cfg:
                row = {"sampler": models.sampler, "scheduler": models.scheduler, "cfg": cfg}
                rows.append(row | measure(models, readers, arguments.n, cfg))
                print(rows[-1], flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"n": arguments.n, "rows": rows}, indent=1) + "\n", encoding="ascii")
    print("best:", best(rows))


if __name__ == "__main__":
    main()
