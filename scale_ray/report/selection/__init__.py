"""Which method and setting to use, chosen without target labels, and what that costs by them."""
