"""The paper's networks at full size, trained and measured on one GPU in minutes."""
