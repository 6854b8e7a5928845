"""What the service computes, without HTTP: embedding, searching, recasting."""
