"""The search: FAISS over the rows of a store, its cache, doppelganger rates."""
