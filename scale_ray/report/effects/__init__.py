"""What the loss terms and methods do: effects, Shapley values, differences and claims, with intervals and tests."""
