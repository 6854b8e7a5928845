"""Running the service: keys, limits of requests, logs, metrics, `chemtwin doctor`."""
