"""Which guidance and sampler are chosen."""

import json

from demo.eval.image_choice import PROMPTED, best
from demo.eval.image_report import CFG, REPORTS, SAMPLER, SCHEDULER

GOOD = dict.fromkeys(PROMPTED, 0.99)


def test_the_readers_agreement_decides_among_those_that_do_as_prompted():
    rows = [
        GOOD | {"cfg": 2.0, "agreement.picture": 0.93},
        GOOD | {"cfg": 3.0, "agreement.picture": 0.95},
        GOOD | {"cfg": 1.0, "agreement.picture": 0.99, "two.pattern": 0.5},
    ]
    assert best(rows)["cfg"] == 3.0
    assert best(rows[2:])["cfg"] == 1.0  # none does as prompted


def test_the_defaults_are_what_was_chosen():
    rows = json.loads((REPORTS / "image_choice.json").read_text(encoding="ascii"))["rows"]
    chosen = best(rows)
    assert (chosen["cfg"], chosen["sampler"], chosen["scheduler"]) == (CFG, SAMPLER, SCHEDULER)
