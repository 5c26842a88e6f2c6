"""The doors: bytes come in, a caller is admitted, an operation answers, bytes go out."""
