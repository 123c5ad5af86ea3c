"""Torch modules that published checkpoints need and ComfyUI lacks, with their loading and key maps."""
