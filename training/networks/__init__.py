"""Training FactorDis and FaderDis."""
