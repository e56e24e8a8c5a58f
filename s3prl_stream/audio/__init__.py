"""Audio bytes: headers, decoding, encoding, and reading stretches of source files. No torch."""
