"""A bus's Parquet folder: what its parts say about themselves, and how they are read back."""
