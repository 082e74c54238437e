"""The two LightningModules: multi-exit training and scheduler optimisation."""
