"""What the pack does to a running model: NOISE objects, and later attention patches, wrappers, guiders and samplers."""
