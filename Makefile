# make demo and make test need nothing but a Python 3.10 or newer; everything is installed into this folder.

PYTHON ?= python3
VENV_PYTHON = .venv/bin/python
DEMO_PICTURE_WORKFLOW = workflows/api/demo_text_to_image.json
DEMO_WORKFLOW = workflows/api/warped_noise_from_video.json
DEMO_VIDEO_WORKFLOW = workflows/api/demo_motion_transfer.json
DEMO_CLIP = demo/media/bigbuckbunny_49.mp4

.DEFAULT_GOAL := help
.PHONY: help install demo test lint serve bench test-gpu gpu-bundle clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Make the virtual environment and fetch the embedded ComfyUI (make demo and make test do it too)
	@$(PYTHON) host/bootstrap.py run

demo: install ## Draw pictures, warp noise along a clip, make a video that moves like it; prints the paths under output/
	@$(VENV_PYTHON) host/run.py $(DEMO_PICTURE_WORKFLOW) --output output
	@$(VENV_PYTHON) host/run.py $(DEMO_WORKFLOW) --input $(DEMO_CLIP) --output output
	@$(VENV_PYTHON) host/run.py $(DEMO_VIDEO_WORKFLOW) --input $(DEMO_CLIP) --output output

test: ## Install what tests need and run all of them; make test ARGS="-k schedule" runs some
	@$(PYTHON) host/bootstrap.py test
	@$(VENV_PYTHON) host/check.py $(ARGS)

lint: ## Check style, formatting and the registry's static rules
	@$(PYTHON) host/bootstrap.py test
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@DO_NOT_TRACK=1 $(VENV_PYTHON) -m comfy_cli --skip-prompt node validate

serve: install ## Open the graph editor with this pack; make serve ARGS="--port 8200"
	@$(VENV_PYTHON) host/serve.py $(ARGS)

bench: install ## Print the benchmark tables and write benchmarks/RESULTS.md
	@$(VENV_PYTHON) -m benchmarks $(ARGS)

test-gpu: ## Run the GPU tests with the PyTorch that is there, or with the virtual environment's; log in build/
	@$(PYTHON) host/gpu.py test $(ARGS)

gpu-bundle: install ## Pack what GPU tests need into .gpu-bundle/, for a machine that has PyTorch and nothing else
	@$(VENV_PYTHON) host/gpu.py bundle

clean: ## Remove everything that was installed or made here
	rm -rf .venv .host .gpu-bundle build output .pytest_cache .ruff_cache
