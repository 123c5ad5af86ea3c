"""What helps a model to learn where things stand: laws of the two readings and of the probe."""

import pytest
import torch
from torch import nn

from demo import diffusion, training
from demo.layout import PlaceReading, RelationProbe, RelationReading
from demo.world_tokens import token_rows


class Features(nn.Module):
    """A stand-in for a UNet: two cross attentions that get the features they are called with."""

    def __init__(self, width: int):
        super().__init__()
        self.input_blocks = nn.ModuleDict({"1": self.block(width), "4": self.block(width)})
        self.output_blocks = nn.ModuleDict({"3": self.block(width)})

    @staticmethod
    def block(width: int) -> nn.Module:
        block, attention = nn.Module(), nn.Module()
        attention.to_q, attention.forward = nn.Linear(width, width), lambda x: x
        block.attn2 = attention
        return block

    def forward(self, one, four, three):
        self.input_blocks["1"].attn2(one)
        self.input_blocks["4"].attn2(four)
        self.output_blocks["3"].attn2(three)


def places(side: int) -> torch.Tensor:
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    return torch.stack((line.expand(side, side), line[:, None].expand(side, side)), -1).reshape(1, side * side, 2)


def test_places_are_read_right_by_the_right_heads_only():
    unet = Features(2)
    reading = PlaceReading(unet)
    assert len(reading.heads) == 2  # the first block is left out
    with torch.no_grad():
        for head in reading.heads:
            head.weight.copy_(torch.eye(2))
            head.bias.zero_()
    unet(torch.full((3, 16, 2), 9.0), places(8).expand(3, -1, -1), places(4).expand(3, -1, -1))
    assert reading.loss().item() == pytest.approx(0, abs=1e-12)
    unet(places(4), places(8).flip(-1), places(4))  # across and down exchanged in one of two
    exchanged = (places(8) - places(8).flip(-1)).square().mean() / 2
    assert reading.loss().item() == pytest.approx(exchanged.item())
    assert not reading.features  # nothing is kept for the next step


def test_places_send_a_gradient_into_the_features():
    unet = Features(4)
    reading = PlaceReading(unet)
    some = torch.randn(2, 64, 4, requires_grad=True)
    unet(torch.zeros(2, 16, 4), some, torch.randn(2, 16, 4))
    reading.loss().backward()
    assert some.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("caption", "relation"),
    [
        ("a red cat to the left of a blue cube in a meadow, lit from below", "left"),
        ("a red cat right of a blue cube, lit from the left", "right"),
        ("on the left a red cat and on the right a blue cube", "left"),
        ("a red cat on the right in a city", "right"),
        ("a red cat above a blue cube, lit from above", "above"),
        ("a red cat below a blue cube, lit from above", "below"),
        ("a red cat and a blue cube, lit from the right", None),
        ("a red cat, lit from above", None),
        ("", None),
    ],
)
def test_a_relation_is_what_the_caption_says_first_and_light_is_none(caption, relation):
    reading = RelationReading(torch.device("cpu"))
    rows = torch.from_numpy(token_rows([caption])).long()
    costs = {}
    for word in reading.WORDS:
        with torch.no_grad():
            reading.head.weight.zero_()
            reading.head.bias.copy_(torch.tensor([20.0 if name == word else 0.0 for name in reading.WORDS]))
        costs[word] = float(reading.loss(rows, torch.zeros(1, 77, 128)))
    wrong = [word for word, cost in costs.items() if cost > 1]
    assert wrong == ([word for word in reading.WORDS if word != relation] if relation else [])


def test_a_relation_is_read_from_the_words_after_it_only():
    reading = RelationReading(torch.device("cpu"))
    rows = torch.from_numpy(token_rows(["a red cat left of a blue cube"])).long()
    states = torch.zeros(1, 77, 128, requires_grad=True)
    reading.loss(rows, states).backward()
    reached = states.grad[0].abs().amax(-1) > 0
    assert reached.tolist() == [False] * 4 + [True] * 73  # BEGIN a red cat | left ...


def test_the_probe_is_zero_for_a_model_that_does_not_look_at_words():
    class Blind(nn.Module):
        def forward(self, x, times, context, transformer_options):
            return x

    class Looking(nn.Module):
        """Guesses the noise wrongly by what the words' mean state is."""

        def forward(self, x, times, context, transformer_options):
            return x + context.mean((1, 2))[:, None, None, None]

    class Encoder:
        def encode(self, pictures):
            return torch.nn.functional.avg_pool2d(pictures, 8).repeat(1, 2, 1, 1)[:, :4]

    from demo.train_image import build

    _, text = build(torch.device("cpu"))
    probe = RelationProbe(Encoder(), torch.device("cpu"), 32, 24)
    assert set(probe(Blind(), text)) == {"left/right", "above/below"}
    assert set(probe(Blind(), text).values()) == {0.0}
    assert all(clean.shape[0] >= 4 for clean, _, _ in probe.groups.values())
    for _, _, (right, wrong) in probe.groups.values():
        assert ((right != wrong).sum(1) == 1).all()  # one word's difference
    text.text_model.final_layer_norm.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    text.text_model.final_layer_norm.bias.data.fill_(0.5)
    assert any(value != 0 for value in probe(Looking(), text).values())


def test_where_layout_begins_and_its_limit_can_be_chosen():
    levels = diffusion.signal_levels()
    times, weights = diffusion.TimeDraw(levels, 4000, 5.0, 0.5, 1.0, 700, 30.0).draw()
    assert times[:2000].min() >= 700 > times[2000:].min()
    assert weights[:2000].max() == 30


def test_a_state_may_lack_what_only_helps_training(tmp_path):
    arguments = training.parser("x", minutes=1, batch=2, rate=1e-3, pictures=1).parse_args(["--state", str(tmp_path)])
    weight, helper = torch.ones(3, 2, requires_grad=True), torch.ones(2, requires_grad=True)
    training.write_state(tmp_path / "state.safetensors", {"weight": torch.full((3, 2), 5.0)}, training.Progress(7))
    arguments.resume = tmp_path
    named = {"weight": weight, f"{training.AUXILIARY}head": helper}
    trainer = training.Trainer(named, lambda: weight.sum(), arguments)
    assert trainer.progress.step == 7
    assert (weight == 5).all()
    assert (helper == 1).all()
    with pytest.raises(KeyError, match="other"):
        training.Trainer({"other": weight}, lambda: weight.sum(), arguments)
