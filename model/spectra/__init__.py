"""From a file or arrays to a spectrum on a model's grid."""
