"""The story's evaluation: its measures on readings made by hand, and its arithmetic against the nodes' own."""

import pytest
import torch

from demo.eval.image_models import CHECKPOINTS, ImageModels
from demo.eval.reading import Reading
from demo.eval.story_models import FRAMES, Arm, Story, arms_of, draw, draw_stories, encode, prompts_of
from demo.eval.story_report import compare, interval, markdown, measure
from demo.world.attributes import SHAPES

STORY = Story(SHAPES.index("cat"), (0, 1, 2, 3, 4), (0, 1, 2, 3, 0), "colour", 0)


@pytest.fixture(scope="module")
def models():
    return ImageModels(CHECKPOINTS, torch.device("cpu"), sampler="dpmpp_2m")


def reading(**changes):
    """Five frames, each with one small character nobody asked for and the story's own; as asked in all frames."""
    values = {
        "present": torch.tensor([[True, True]] * FRAMES),
        "position": torch.zeros(FRAMES, 2, 2),
        "radius": torch.tensor([[0.1, 0.5]] * FRAMES),
        "angle": torch.zeros(FRAMES, 2),
        "shape": torch.tensor([[3, STORY.shape]] * FRAMES),
        "colour": torch.tensor([[5, STORY.value]] * FRAMES),
        "pattern": torch.tensor([[1, 2]] * FRAMES),
        "accessory": torch.tensor([[1, 3]] * FRAMES),
        "light": torch.tensor(STORY.lights),
        "background": torch.tensor(STORY.backgrounds),
    }
    return Reading(**(values | changes))


def scores(found):
    return {name: float(value) for name, value in measure([STORY], found).items()}


def test_a_perfect_story():
    assert set(scores(reading()).values()) == {1.0}


def test_what_counts_against_a_story():
    one_other = scores(reading(pattern=torch.tensor([[1, 2]] * 4 + [[1, 4]])))
    assert one_other["pattern"] == pytest.approx(0.6) and one_other["agreement"] == pytest.approx(0.9)
    unsure = scores(reading(colour=torch.tensor([[5, -1]] * FRAMES)))
    assert unsure["colour"] == unsure["named right"] == 0.0
    missing = scores(reading(present=torch.tensor([[False, False]] + [[True, True]] * 4)))
    assert missing["shape"] == pytest.approx(0.6) and missing["shape right"] == pytest.approx(0.8)
    places = scores(reading(background=torch.tensor([0, 0, 0, 0, 0])))
    assert places["background"] == pytest.approx(0.2) and places["frames right"] == pytest.approx(0.6)


def test_intervals_are_of_the_difference_story_by_story():
    assert interval(torch.tensor([0.5, 0.5, 0.5])) == {"n": 3, "mean": 0.5, "low": 0.5, "high": 0.5}
    rows = {"agreement": torch.tensor([0.1, 0.9, 0.5])}
    table = compare({"one by one": rows, "story": {"agreement": rows["agreement"] + 0.2}})
    assert table["story"]["agreement"]["gain"]["low"] == pytest.approx(0.2, abs=1e-3)
    assert table["story"]["agreement"]["low"] < 0.5


def test_stories():
    stories = draw_stories(50, 1)
    assert stories == draw_stories(50, 1) != draw_stories(50, 2)
    assert all(len(set(story.backgrounds)) == FRAMES for story in stories)
    assert {story.named for story in stories} == {"colour", "pattern", "accessory"}
    assert Story(9, (), (), "pattern", 1).identity == "a striped cat"
    assert Story(9, (), (), "accessory", 3).identity == "a cat with glasses"
    assert STORY.identity == "a red cat" and STORY.texts[0] == "in a meadow, lit from the left"


def test_it_encodes_as_the_nodes_do(models):
    from papernodes.nodes.demo_checkpoint import DemoCheckpoint
    from papernodes.nodes.story import StoryPrompts

    clip = DemoCheckpoint.execute("image").args[1]
    for mode in ("svr", "svr-eot", "off"):
        theirs = StoryPrompts.execute(
            clip, STORY.identity, "\n".join(STORY.texts), 10, mode, -0.01, 1.0, 0.01, 0.05, True
        ).args[0]
        ours, bias = encode(models, prompts_of(STORY, Arm(together=True)), Arm(together=True, mode=mode, strength=1.0))
        found = torch.cat([one[0][0] for one in theirs])
        assert (found - ours).abs().max() < 2e-3 * ours.abs().max(), mode
        assert bias[0, 0].nonzero()[:, 0].tolist() == [0, 1, 2, 3]


def test_every_arm_draws(models):
    stories = draw_stories(1, 3)
    pictures = {name: draw(models, stories, arm, 1, 3.0, steps=2) for name, arm in arms_of().items()}
    assert all(one.shape == (FRAMES, 3, 128, 128) and one.isfinite().all() for one in pictures.values())
    same = pictures["story, neither"]
    assert all(torch.allclose(frame, same[0], atol=1e-4) for frame in same)  # one prompt, one noise, one picture
    assert (pictures["story"] - pictures["story, no identity attention"]).abs().max() > 1e-2


def test_the_table_has_every_arm():
    found = {name: measure([STORY, STORY], reading_twice()) for name in arms_of()}
    content = {
        "stories": 2, "seeds": 1, "steps": 2, "sampler": "euler", "scheduler": "normal", "cfg": 3.0, "device": "CPU",
        "date": "today", "lora": None, "strength": 1.0, "arms": compare(found),
    }  # fmt: skip
    text = markdown(content)
    assert all(f"| {name} |" in text for name in arms_of()) and "| chance |" in text


def reading_twice():
    once = reading()
    return once.select(torch.arange(FRAMES).repeat(2))
