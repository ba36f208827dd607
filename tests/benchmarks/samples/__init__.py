"""What GANs from noise have learnt: samples, and who judges them."""
