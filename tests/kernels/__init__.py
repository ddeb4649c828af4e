"""The torture table of the dense operation: one generator, one oracle, one rule."""
