"""How many stars and groups each way to a model of a survey's own needs."""

FEWEST_TO_TRAIN = 5000
"""Stars from which on it is worth training a model on a survey alone."""

FEWEST_GROUPS_TO_FIT = 15
"""Groups of siblings from which on a training is fitted to them: one in five judges the model. Fewer all do."""

FEWEST_TO_ADAPT = 20
"""Stars inside the range of a model that is adapted to them."""

FEWEST_GROUPS = 3
"""Groups of siblings, if each is to be left out once."""
