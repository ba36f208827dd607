"""A run's life: training, its folder, and translation with what it has learnt."""
