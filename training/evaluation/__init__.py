"""How good a model is: twins found, recasts, the limit, reports."""
