"""Light Source on the real server: what a graph without a VAE, or with a bad text, is told."""

import json

from papernodes.host import layout, workflow


def graph() -> tuple[dict, dict]:
    """The template's, in API format, and its nodes by class."""
    prompt = workflow.load(layout.ROOT / "workflows" / "api" / "light_from_a_side.json").content
    return prompt, {node["class_type"]: (key, node["inputs"]) for key, node in prompt.items()}


def test_the_latent_without_a_vae_says_so_every_time(run_prompt):
    prompt, nodes = graph()
    del nodes["PaperNodes_LightSource"][1]["vae"]
    for _ in range(2):  # the second time from the host's cache
        outcome = run_prompt(prompt)
        assert outcome.status == "error"
        (error,) = outcome.errors
        assert error.node == nodes["KSampler"][0]
        assert "'latent' of Light Source is used, but nothing is connected to its input 'vae'" in error.message


def test_the_picture_needs_no_vae(run_prompt):
    prompt, nodes = graph()
    key, inputs = nodes["PaperNodes_LightSource"]
    del inputs["vae"]
    inputs["width"] = 72
    save = {"class_type": "SaveImage", "inputs": {"images": [key, 0], "filename_prefix": "light"}}
    outcome = run_prompt({key: prompt[key], "save": save})
    assert outcome.status == "success", outcome.errors
    assert "save" in outcome.ran


def test_a_bad_text_is_refused_before_anything_runs(run_prompt):
    prompt, nodes = graph()
    bad = {"version": 1, "lights": [{"kind": "side", "angle": "left"}]}
    nodes["PaperNodes_LightSource"][1]["lights"] = json.dumps(bad)
    outcome = run_prompt(prompt)
    assert outcome.status != "success" and not outcome.ran
    assert any('light 1: "angle" is "left"; expected a number' in str(error) for error in outcome.errors)
