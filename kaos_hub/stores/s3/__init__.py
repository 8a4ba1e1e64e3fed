"""The store in a bucket of S3 or what speaks like it."""
