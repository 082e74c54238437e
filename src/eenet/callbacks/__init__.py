"""Lightning callbacks: what is seeded, written and logged."""
